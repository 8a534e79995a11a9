"""From stored songs to batches: views, windows, the Grain pipeline, packing."""

from m4m_jax.data.eligibility import Eligible as Eligible
from m4m_jax.data.eligibility import eligible as eligible
from m4m_jax.data.packing import PackedBatch as PackedBatch
from m4m_jax.data.packing import Size as Size
from m4m_jax.data.packing import choose_sizes as choose_sizes
from m4m_jax.data.packing import largest as largest
from m4m_jax.data.packing import measure as measure
from m4m_jax.data.packing import pack as pack
from m4m_jax.data.packing import unpack as unpack
from m4m_jax.data.pipeline import Component as Component
from m4m_jax.data.pipeline import SongSource as SongSource
from m4m_jax.data.pipeline import batches as batches
from m4m_jax.data.pipeline import dataset as dataset
from m4m_jax.data.pipeline import mixture as mixture
from m4m_jax.data.pipeline import songs as songs
from m4m_jax.data.pipeline import usable_songs as usable_songs
from m4m_jax.data.windows import View as View
from m4m_jax.data.windows import view as view
