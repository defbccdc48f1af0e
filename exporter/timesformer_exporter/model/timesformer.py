"""TimeSformer in PyTorch: "Is Space-Time Attention All You Need for Video Understanding?".

Bertasius, Wang and Torresani, 2021 (https://arxiv.org/abs/2102.05095). The modules have the names
of Hugging Face's implementation, so that its state dicts load. Where that implementation differs
from the authors' code (facebookresearch/TimeSformer), this model follows the authors' code.

Shapes are written with B clips, T frames, N = H'*W' patches a frame, D hidden size, h heads.
The first token is CLS. Token ``1 + p*T + t`` is patch p in frame t, so the tokens of one patch in
all frames follow each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from timesformer_exporter.model.config import TimesformerConfig
from timesformer_exporter.model.embedding_resize import resize_positions, resize_times

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "selu": nn.SELU,
}


@dataclass(frozen=True)
class TimesformerOutput:
    """The outputs of the bare model.

    Attributes:
        last_hidden_state: After the final LayerNorm: [B, 1+N*T, D]; space-only: [B, 1+N, D].
        hidden_states: The input of each layer and the output of the last one, before the
            final LayerNorm: L+1 of [B, 1+N*T, D]; space-only: [B*T, 1+N, D].
        spatial_attentions: One for each layer, probabilities [B*T, h, 1+N, 1+N]
            (divided and space-only).
        temporal_attentions: One for each layer, [B*N, h, T, T] (divided).
        attentions: One for each layer, [B, h, 1+N*T, 1+N*T] (joint).
    """

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] = ()
    spatial_attentions: tuple[Tensor, ...] = ()
    temporal_attentions: tuple[Tensor, ...] = ()
    attentions: tuple[Tensor, ...] = ()


class PatchEmbeddings(nn.Module):
    """Cuts frames into patches and projects each to a token."""

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        self.projection = nn.Conv2d(
            config.num_channels, config.hidden_size, config.patch_hw, stride=config.patch_hw
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Frames [B*T, C, H, W] to a grid of tokens [B*T, D, H', W']."""
        return self.projection(frames)  # type: ignore[no-any-return]  # nn.Module calls are Any


class Embeddings(nn.Module):
    """Makes tokens of patches, adds CLS, and adds position and time embeddings."""

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        self.grid = config.grid
        self.patch_embeddings = PatchEmbeddings(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.position_embeddings = nn.Parameter(
            torch.zeros(1, 1 + config.num_patches, config.hidden_size)
        )
        self.time_embeddings: nn.Parameter | None = None
        if config.attention_type != "space_only":
            self.time_embeddings = nn.Parameter(
                torch.zeros(1, config.num_frames, config.hidden_size)
            )
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Clips [B, T, C, H, W] to tokens [B, 1+N*T, D]; space-only: [B*T, 1+N, D]."""
        batch, frames = pixel_values.shape[:2]
        grid = self.patch_embeddings(pixel_values.flatten(0, 1))
        patches = grid.flatten(2).transpose(1, 2)  # [B*T, N, D]
        positions = self._positions(grid.shape[-2], grid.shape[-1])
        patches = self.dropout(patches + positions[:, 1:])
        cls = self.dropout(self.cls_token + positions[:, :1])
        if self.time_embeddings is None:
            return torch.cat([cls.expand(batch * frames, -1, -1), patches], dim=1)
        patches = torch.unflatten(patches, 0, (batch, frames)) + self._times(frames).unsqueeze(2)
        tokens = self.dropout(patches).transpose(1, 2).flatten(1, 2)  # patch by patch
        return torch.cat([cls.expand(batch, -1, -1), tokens], dim=1)

    def _positions(self, height: int, width: int) -> Tensor:
        """Position embeddings [1, 1+H'*W', D] for the actual grid, by 2-D nearest neighbour."""
        if (height, width) == self.grid:
            return self.position_embeddings
        return resize_positions(self.position_embeddings, self.grid, (height, width))

    def _times(self, frames: int) -> Tensor:
        """Time embeddings [1, T, D] for the actual number of frames, by nearest neighbour."""
        assert self.time_embeddings is not None  # noqa: S101 (narrows the type)
        if frames == self.time_embeddings.shape[1]:
            return self.time_embeddings
        return resize_times(self.time_embeddings, frames)


class SelfAttention(nn.Module):
    """Multi-head attention with one packed projection to queries, keys and values."""

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.qkv_bias)
        self.dropout = config.attention_probs_dropout_prob

    def forward(self, tokens: Tensor, want_probabilities: bool) -> tuple[Tensor, Tensor | None]:
        """Tokens [..., S, D] to their context, and the probabilities [..., h, S, S] if wanted."""
        query, key, value = (
            self.qkv(tokens)
            .unflatten(-1, (3, self.num_heads, -1))
            .permute(2, 0, 3, 1, 4)  # [3, batch, h, S, D/h]
            .unbind(0)
        )
        dropout = self.dropout if self.training else 0.0
        probabilities = None
        if want_probabilities:
            scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
            probabilities = scores.softmax(dim=-1)
            context = functional.dropout(probabilities, dropout) @ value
        else:
            context = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return context.transpose(1, 2).flatten(2), probabilities


class Projection(nn.Module):
    """The linear layer and dropout that end attention and MLP."""

    def __init__(self, size_in: int, size_out: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(size_in, size_out)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [..., in] to [..., out]."""
        return self.dropout(self.dense(tokens))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Self-attention and its output projection."""

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.output = Projection(config.hidden_size, config.hidden_size, config.hidden_dropout_prob)

    def forward(self, tokens: Tensor, want_probabilities: bool) -> tuple[Tensor, Tensor | None]:
        """Tokens [batch, S, D] to tokens, and the attention probabilities if wanted."""
        context, probabilities = self.attention(tokens, want_probabilities)
        return self.output(context), probabilities


class Intermediate(nn.Module):
    """The first half of the MLP: a wider linear layer and the activation."""

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = (
            nn.GELU(approximate="tanh")
            if config.hidden_act == "gelu_new"
            else _ACTIVATIONS[config.hidden_act]()
        )
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [..., D] to [..., intermediate]."""
        return self.dropout(self.activation(self.dense(tokens)))  # type: ignore[no-any-return]


class DropPath(nn.Module):
    """Stochastic depth: in training, drops a whole residual branch for some samples."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        """The branch [batch, ...], zeroed for some samples and scaled up for the others."""
        if self.probability == 0.0 or not self.training:
            return branch
        keep = 1.0 - self.probability
        kept = torch.rand(branch.shape[0], *[1] * (branch.ndim - 1), device=branch.device) < keep
        return branch * (kept / keep)


class Layer(nn.Module):
    """An encoder layer with one attention: joint over a whole clip, or space-only over a frame."""

    def __init__(self, config: TimesformerConfig, drop_path: float) -> None:
        super().__init__()
        eps = config.layer_norm_eps
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=eps)
        self.attention = Attention(config)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=eps)
        self.intermediate = Intermediate(config)
        self.output = Projection(
            config.intermediate_size, config.hidden_size, config.hidden_dropout_prob
        )
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        tokens: Tensor,
        frames: int,  # noqa: ARG002 (the divided layer needs it)
        want_attentions: bool,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Tokens [batch, S, D] to tokens, and the attention probabilities if wanted."""
        residual, probabilities = self.attention(self.layernorm_before(tokens), want_attentions)
        tokens = self._mlp(tokens + self.drop_path(residual))
        return tokens, {} if probabilities is None else {"attentions": probabilities}

    def _mlp(self, tokens: Tensor) -> Tensor:
        branch = self.output(self.intermediate(self.layernorm_after(tokens)))
        return tokens + self.drop_path(branch)  # type: ignore[no-any-return]


class DividedLayer(Layer):
    """Divided space-time attention: over time within each patch, then over space in each frame."""

    def __init__(self, config: TimesformerConfig, drop_path: float) -> None:
        super().__init__(config, drop_path)
        self.temporal_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.temporal_attention = Attention(config)
        self.temporal_dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, tokens: Tensor, frames: int, want_attentions: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Tokens [B, 1+N*T, D] to tokens, and the attention probabilities if wanted."""
        batch = tokens.shape[0]
        cls, patches = tokens[:, :1], tokens[:, 1:]

        # Time: each patch attends to itself in all frames, without CLS.
        tubes = torch.unflatten(patches, 1, (-1, frames)).flatten(0, 1)  # [B*N, T, D]
        residual, temporal = self.temporal_attention(
            self.temporal_layernorm(tubes), want_attentions
        )
        residual = self.temporal_dense(self.drop_path(residual))
        patches = patches + torch.unflatten(residual, 0, (batch, -1)).flatten(1, 2)

        # Space: each frame's patches attend to each other and to a copy of CLS.
        images = (
            torch.unflatten(patches, 1, (-1, frames)).transpose(1, 2).flatten(0, 1)
        )  # [B*T, N, D]
        cls_copies = cls.expand(-1, frames, -1).flatten(0, 1).unsqueeze(1)
        residual, spatial = self.attention(
            self.layernorm_before(torch.cat([cls_copies, images], dim=1)), want_attentions
        )
        residual = torch.unflatten(self.drop_path(residual), 0, (batch, frames))  # [B, T, 1+N, D]
        cls = cls + residual[:, :, 0].mean(dim=1, keepdim=True)
        patches = patches + residual[:, :, 1:].transpose(1, 2).flatten(1, 2)

        tokens = self._mlp(torch.cat([cls, patches], dim=1))
        if spatial is None or temporal is None:
            return tokens, {}
        return tokens, {"spatial_attentions": spatial, "temporal_attentions": temporal}


class Encoder(nn.Module):
    """The stack of layers, with stochastic depth that grows linearly."""

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        layer = DividedLayer if config.attention_type == "divided_space_time" else Layer
        steps = torch.linspace(0, config.drop_path_rate, config.num_hidden_layers, device="cpu")
        self.layer = nn.ModuleList(layer(config, rate) for rate in steps.tolist())


class TimesformerModel(nn.Module):
    """The bare TimeSformer: clips to hidden states."""

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        initialize(self, config.initializer_range)

    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> TimesformerOutput:
        """Runs the encoder.

        Args:
            pixel_values: Normalised float clips [B, T, C, H, W]. T, H and W may differ from
                the configuration; the embeddings are then resized by nearest neighbour.
            output_hidden_states: Keep the hidden states of all layers.
            output_attentions: Keep the attention probabilities of all layers.
        """
        batch, frames = pixel_values.shape[:2]
        tokens = self.embeddings(pixel_values)
        hidden_states, all_attentions = [tokens], []
        for layer in self.encoder.layer:
            tokens, attentions = layer(tokens, frames, output_attentions)
            hidden_states.append(tokens)
            all_attentions.append(attentions)
        if self.config.attention_type == "space_only":
            tokens = torch.unflatten(tokens, 0, (batch, frames)).mean(dim=1)
        return TimesformerOutput(
            last_hidden_state=self.layernorm(tokens),
            hidden_states=tuple(hidden_states) if output_hidden_states else (),
            **_by_kind(all_attentions, self.config.attention_type),
        )


class TimesformerForVideoClassification(nn.Module):
    """TimeSformer with a linear classifier on the CLS token."""

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        self.config = config
        self.timesformer = TimesformerModel(config)
        self.classifier = (
            nn.Linear(config.hidden_size, config.num_labels) if config.num_labels else nn.Identity()
        )
        initialize(self.classifier, config.initializer_range)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Clips [B, T, C, H, W] to logits [B, labels]."""
        output = self.timesformer(pixel_values)
        return self.classifier(output.last_hidden_state[:, 0])  # type: ignore[no-any-return]


@torch.no_grad()
def initialize(module: nn.Module, std: float) -> None:
    """Initialises as the authors' code does: truncated normal weights, zero biases."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(part.weight, std=std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, Embeddings):
            nn.init.trunc_normal_(part.cls_token, std=std)
            nn.init.trunc_normal_(part.position_embeddings, std=std)


def _by_kind(layers: list[dict[str, Tensor]], attention_type: str) -> dict[str, tuple[Tensor, ...]]:
    """Gathers the layers' attention probabilities by the names of TimesformerOutput's fields."""
    kinds = layers[0].keys()
    gathered = {kind: tuple(layer[kind] for layer in layers) for kind in kinds}
    if attention_type == "space_only" and "attentions" in gathered:
        return {"spatial_attentions": gathered["attentions"]}
    return gathered
