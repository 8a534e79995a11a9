from __future__ import annotations

import json
import subprocess
import sys

import pytest

from m4m_jax.tpu import costs, hlo, plan

MIB = 2**20


@pytest.fixture(scope="module")
def counted() -> dict[str, dict]:
    """What is counted in small programs that libtpu compiled for four chips."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.tpu.programs"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = map(json.loads, done.stdout.splitlines())
    return {line["name"]: line for line in lines}


def test_products_are_counted_as_often_as_loops_turn(counted):
    assert counted["product"]["flops"] == 2 * 512 * 256 * 1024
    assert counted["looped"]["flops"] == 7 * 2 * 512 * 256 * 256
    assert counted["batched"]["flops"] == 2 * 4 * 8 * 128 * 256 * 64
    for name in ("product", "looped", "batched"):
        assert counted[name]["traced"] == counted[name]["flops"]
    # Where nothing loops, XLA counts the same.
    assert counted["product"]["xla"] == counted["product"]["flops"]


def test_a_device_computes_its_part(counted):
    # The forward product and the one for the gradient, over four devices.
    assert counted["summed"]["traced"] == 2 * 2 * 4096 * 256 * 512
    assert counted["summed"]["flops"] == counted["summed"]["traced"] / 4


def test_a_summed_gradient_goes_round_the_ring_twice(counted):
    ((kind, sent, devices, _, slices),) = counted["summed"]["sent"]
    assert (kind, devices, slices) == ("all-reduce", 4, False)
    assert sent == 2 * 3 / 4 * 256 * 512 * 2


def test_a_gradient_is_summed_in_slices_then_between_them(counted):
    whole, sent = 256 * 512 * 4, counted["slices"]["collectives"]
    # An eighth of the gradient, which is what a chip has summed up, goes to the other slice.
    between = 2 * 1 / 2 * whole / 8
    ring = 7 / 8 * whole
    assert sent == {
        "reduce-scatter": ring,
        "all-reduce between slices": between,
        "all-gather": ring,
    }
    assert counted["slices"]["network"] == pytest.approx(between / (25e9 / 8))


def test_parameters_kept_in_parts_are_gathered(counted):
    sent = {kind: (size, devices, share) for kind, size, devices, share, _ in
            counted["parts"]["sent"]}  # fmt: skip
    # A device sends its half; its partner is next to it along one of two dimensions.
    assert sent["all-gather"] == (256 * 512 * 2 / 2, 2, 0.5)


def test_parameters_are_gathered_in_the_precision_that_is_computed_in(counted):
    # And their gradients are summed in parts: the same number of bytes, the other way.
    sent = [line[:3] for line in counted["narrowed"]["sent"]]
    once = 3 / 4 * 512 * 256 * 2
    assert sent == [["all-gather", once, 4], ["reduce-scatter", once, 4]]


def test_memory_is_what_is_read_and_written_there(counted):
    assert counted["copied"]["bytes"] == 2 * 4096 * 4096 * 2
    assert counted["product"]["bytes"] == 2 * (512 * 256 + 256 * 1024 + 512 * 1024)


@pytest.mark.parametrize(("slices", "number"), [("{1,2}", 2), ("{1:4}", 4), ("{1,3:5}", 4)])
def test_slices_are_read_in_both_of_their_forms(slices, number):
    told = f'_xla_megascale_target="{slices}x{{0:7}}",_xla_megascale_transfer_type="ALL_REDUCE"'
    assert hlo.between_slices(told) == ("all-reduce", number)
    assert hlo.between_slices('_xla_host_transfer_handler_name="other"') is None


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("replica_groups={{0,2},{1,3}}, x", [0, 2]),
        ("replica_groups=[2,4]<=[8], x", [0, 1, 2, 3]),
        ("replica_groups=[4,2]<=[2,4]T(1,0), x", [0, 4]),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}, x", [0, 1, 2, 3]),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}, x", [0, 4]),
        ("replica_groups=mesh['a'=8] {'a':(2)2}, x", [0, 2]),
        ("source_target_pairs={{3,5},{5,3}}, x", [3, 5]),
    ],
)
def test_groups_are_read_in_each_of_their_forms(text, members):
    assert hlo.first_group(text) == members


def test_arrays_in_the_chip_are_no_traffic():
    shape = "(bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, f32[8]{0:T(128)}, pred[4]{0})"
    assert hlo.size(shape) == 8 * 128 * 2 + 32 + 4
    assert hlo.held(shape) == 4 * 128 + 4


@pytest.mark.parametrize(
    ("shape", "elements"),
    [
        ("f32[3,8,160]{2,1,0:T(8,128)}", 3 * 8 * 256),
        ("f32[3,8,160]{0,2,1:T(8,128)}", 8 * 160 * 128),
        ("f32[33,8,256]{2,0,1:T(8,128)}", 8 * 40 * 256),
        ("f32[100]{0:T(1024)}", 1024),
        ("f32[]", 1),
    ],
)
def test_arrays_take_whole_tiles(shape, elements):
    assert hlo.held(shape) == 4 * elements


PLANNED = ("product", "looped", "batched", "summed", "parts", "narrowed", "copied")


@pytest.mark.parametrize("name", PLANNED)
def test_a_plan_costs_what_the_program_costs_that_is_compiled_to_the_end(counted, name):
    assert counted[name]["compiled"] == [counted[name]["flops"], counted[name]["bytes"]]


@pytest.mark.parametrize("name", PLANNED)
def test_a_plan_holds_what_the_compiled_program_holds(counted, name):
    counts, arguments, results = counted[name]["held"]
    assert counts == arguments == counted[name]["xla held"][0]
    assert results == counted[name]["xla held"][1]


def test_of_a_slice_that_is_fetched_the_slice_is_traffic():
    text = """
ENTRY %main (p: bf16[64,128]) -> bf16[16,128] {
  %p = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(0)
  %s = ((bf16[64,128]{1,0:T(8,128)(2,1)}), bf16[16,128]{1,0:T(8,128)(2,1)S(1)}, s32[]{:S(2)}) SLICE
  ROOT %d = bf16[16,128]{1,0:T(8,128)(2,1)S(1)} slice-done(%s)
}
""".replace("SLICE", "slice-start(%p), slice={[0:16], [0:128]}")
    assert costs.count(text).bytes == 16 * 128 * 2


def test_hosts_of_a_pod_read_what_their_chips_hold(counted):
    """A host has a square of chips, and a shard over four chips in a row lies on two hosts."""
    for hosts, readers in zip(counted["hosts"]["parts"], (1, 2, 2), strict=True):
        numbers = [number for number, _, _ in hosts]
        assert sorted(numbers) == sorted([*range(16 // readers)] * readers)
        shards = 64 if readers == 1 else 16
        assert {(parts, held) for _, parts, held in hosts} == {
            (16 // readers, shards * readers // 16)
        }


def test_of_a_program_that_does_not_fit_is_told_by_how_much(counted):
    assert counted["large"]["told"][-1] == (
        "does not fit: 8.25 GiB more than the device has of 15.75 GiB"
    )


def test_memory_is_read_from_what_xla_writes_of_allocations():
    text = """allocation 0: size 512, parameter 0, shape |f32[128]| at ShapeIndex {}:
 value: <3 x @0> (size=512,offset=0): f32[128]{0:T(128)}
allocation 1: size 64, maybe-live-out:
allocation 2: size 32, constant:
allocation 3: size 16, thread-local:
allocation 4: size 8, color 1, preallocated-temp:
allocation 5: size 4096, preallocated-temp:
"""
    assert plan.sizes(text) == (512, 64, 32 + 4096)
