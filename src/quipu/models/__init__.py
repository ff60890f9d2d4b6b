"""Model architectures: hyper-parameters and tensors of a file, and how its forward pass is recorded."""

from quipu.models.decoder import Model
from quipu.models.embedding import EmbeddingSpec
from quipu.models.encoder import Encoder
from quipu.models.recommended import recommended_sampling
from quipu.models.registry import ARCHITECTURES, load_model
from quipu.models.spec import DecoderSpec

__all__ = ["ARCHITECTURES", "DecoderSpec", "EmbeddingSpec", "Encoder", "Model", "load_model", "recommended_sampling"]
