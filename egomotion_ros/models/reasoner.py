# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Stage 1: a vision-language model that answers in motion primitives (EgoMotion, arXiv 2604.19105).

Four Hugging Face families take part (:mod:`egomotion_ros.models.families`).  The sequence is

    [image tokens | camera | instruction, padded | begin | 19 base codes]

with attention in both directions inside the prompt where the family was trained so (PaliGemma,
the default), causal elsewhere.  The base code of window k is predicted at row ``begin + k``; the
residual codes of window k by parallel heads at the row of its base code, which therefore see it.

Base codes are decoded one a step, or all in one pass: 19 queries stand at the rows of the codes,
see the prompt and each other, and answer with the base code of their window (that of the first is
known from the prompt already).  One pass
over these codes then gives states and residual codes, of the same kind as one a step gives.
Further passes refine the codes by what the autoregressive head says of each given those before
it (Jacobi decoding, Santilli et al. 2023, arXiv 2305.10427): at most 19 of them lead to the very
answer of greedy decoding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
import torch.nn.functional as F
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
)

from egomotion_ros.models import vlm as _vlm  # noqa: F401  (registers the default family)
from egomotion_ros.models.adapters import add_lora, merge_lora
from egomotion_ros.models.families import make_family
from egomotion_ros.models.grounding import Grounding, GroundingHeads
from egomotion_ros.models.naming import NamingHead
from egomotion_ros.models.queries import Queries
from egomotion_ros.types import PLAN_WINDOWS

#: Additive attention mask value of a forbidden pair; finite, so that fp16 stays finite too.
FORBIDDEN = -1e4
#: Ways to decode that a reasoner can be trained for.
DECODERS = ('autoregressive', 'parallel', 'both')


@dataclass(frozen=True)
class ReasonerConfig:
    """
    What turns a vision-language model into a reasoner.

    ``vlm`` is the Hugging Face configuration (a dict with ``model_type``), ``layer`` the hidden
    layer whose states are handed out and at which the heads sit (0 = embeddings; layers above it
    are not run), ``text_tokens`` the padded length of an instruction,
    ``colours`` and ``shapes`` how many the grounding heads tell apart; ``image_size`` is the side
    of the picture the vision part reads (0: the family's own), ``image_mean`` and ``image_std``
    its normalisation of pixels in [0, 1] (None: 0.5); ``decoder`` one of ``DECODERS``; ``lora``
    (``rank``, ``alpha``) trains low-rank adapters of the decoder instead of all its weights;
    ``hands`` adds grounding heads for heights and for what hands reach for; ``naming`` is
    True of a reasoner that tells whether a sentence names a thing
    (:mod:`egomotion_ros.training.naming`).
    """

    vlm: dict[str, Any]
    layer: int = 4
    codes: int = 256
    levels: int = 4
    windows: int = PLAN_WINDOWS
    text_tokens: int = 40
    text_vocabulary: int = 512
    colours: int = 8
    shapes: int = 5
    image_size: int = 0
    image_mean: tuple[float, float, float] | None = None
    image_std: tuple[float, float, float] | None = None
    decoder: str = 'autoregressive'
    lora: dict[str, float] | None = None
    hands: bool = False
    naming: bool = False


@dataclass
class ReasonerOutput:
    """
    Logits and states of one forward pass.

    ``base`` (B, W, codes), ``residual`` (B, W, levels - 1, codes), ``states`` (B, P + W, D) of the
    stated layer, ``mask`` (B, P + W); ``parallel`` (B, W, codes) base logits of the queries.
    """

    base: Tensor
    residual: Tensor
    states: Tensor
    mask: Tensor
    grounding: Grounding | None = None
    parallel: Tensor | None = None


class Reasoner(nn.Module):
    """Image, instruction and camera pose -> primitives and hidden states."""

    def __init__(self, config: ReasonerConfig, vlm: PreTrainedModel | None = None,
                 dtype: torch.dtype | None = None) -> None:
        """
        Make the model with random weights, or around ``vlm`` (made by :func:`stated_layers`).

        ``dtype`` is that of the weights; ValueError for sizes that do not fit.
        """
        super().__init__()
        self.config = config
        if config.decoder not in DECODERS:
            raise ValueError(f'decoder {config.decoder!r}: expected one of {", ".join(DECODERS)}')
        hf_config = stated_layers(config) if vlm is None else vlm.config
        self.family = make_family(hf_config, config.image_size)
        text = hf_config.get_text_config()
        width, rows = text.hidden_size, self.prompt_rows + config.windows
        window = getattr(text, 'sliding_window', None)
        if window and rows > window:
            raise ValueError(f'{rows} rows: attention of the model reaches {window} rows back')
        self.vlm = vlm or AutoModelForImageTextToText.from_config(hf_config, dtype=dtype)
        count = self.vlm.get_input_embeddings().num_embeddings
        if self.family.own_rows:
            # One row per base code behind the text, then "begin".
            self.vlm.resize_token_embeddings(config.text_vocabulary + config.codes + 1,
                                             mean_resizing=False)
            self.primitives = None
        elif config.text_vocabulary > count:
            raise ValueError(f'text_vocabulary {config.text_vocabulary}: the model knows {count}')
        else:
            # A pretrained table is left as it is, and may stay frozen.
            self.primitives = nn.Embedding(config.codes + 1, width)
        language = self.family.language(self.vlm)
        cos, sin = language.rotary_emb(torch.zeros(1), self.family.positions(rows))
        self.register_buffer('cos', cos[0], persistent=False)
        self.register_buffer('sin', sin[0], persistent=False)
        if config.image_mean is not None or config.image_std is not None:
            mean, std = (torch.tensor(value or (0.5, 0.5, 0.5)).reshape(3, 1, 1)
                         for value in (config.image_mean, config.image_std))
            # From pixels in [-1, 1] to (pixel in [0, 1] - mean) / std.
            self.register_buffer('pixel_gain', 0.5 / std, persistent=False)
            self.register_buffer('pixel_lift', (0.5 - mean) / std, persistent=False)
        # Height around standing eye level, angles as they are: all of order one.
        self.register_buffer('camera_middle', torch.tensor([1.5, 0.4, 0.0]), persistent=False)
        self.register_buffer('camera_gain', torch.tensor([4.0, 3.0, 3.0]), persistent=False)
        self.camera = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width))
        self.norm = nn.RMSNorm(width)
        self.base_head = nn.Linear(width, config.codes)
        self.residual_head = nn.Linear(width, (config.levels - 1) * config.codes)
        self.grounding = GroundingHeads(width, config.colours, config.shapes, config.hands)
        self.queries = (None if config.decoder == 'autoregressive'
                        else Queries(config.windows, width))
        self.naming = nn.Linear(width, 2) if config.naming else None
        if config.lora is not None:
            if self.family.own_rows:
                raise ValueError('lora is for pretrained families; the default is trained whole')
            add_lora(self.vlm, language, config.lora)

    def merge(self) -> Reasoner:
        """Fold low-rank adapters into the weights they belong to; nothing to do without."""
        if self.config.lora is not None:
            merge_lora(self.family.language(self.vlm))
            self.config = replace(self.config, lora=None)
        return self

    def tell_naming(self, head: NamingHead) -> Reasoner:
        """Take over what ``head`` reads in the state before the first primitive."""
        self.naming = head.read.to(self.base_head.weight.dtype)
        self.config = replace(self.config, naming=True)
        return self

    @property
    def prompt_rows(self) -> int:
        """Rows P of a prompt: image tokens, camera, text, begin."""
        return self.family.grid ** 2 + 1 + self.config.text_tokens + 1

    @property
    def width(self) -> int:
        """Width of a state row."""
        return self.vlm.config.get_text_config().hidden_size

    def prompt(self, pixels: Tensor, text: Tensor, text_mask: Tensor,
               camera: Tensor) -> tuple[Tensor, Tensor]:
        """
        Embed the prompt.

        ``pixels`` (B, 3, S, S) in [-1, 1], ``text`` (B, text_tokens) ids, ``text_mask`` the same
        shape, ``camera`` (B, 3) height m, pitch rad, yaw rad.  Returns embeddings (B, P, D), or
        (B, P, (1 + deep) D) where the family has further features, and mask (B, P).
        """
        return self.embed_prompt(self.image_features(pixels, camera), text, text_mask, camera)

    def image_features(self, pixels: Tensor, camera: Tensor | None = None) -> Tensor:
        """
        Image tokens (B, N, (1 + deep) D) of the vision part; pictures (B, 3, S, S) in [-1, 1].

        ``camera`` (B, 3) height m, pitch rad, yaw rad; families that do not look at it do without.
        Pictures smaller than the vision part's are enlarged (bilinear); ValueError for larger.
        """
        size = self.family.size
        if pixels.shape[-1] > size:
            raise ValueError(f'pictures of {pixels.shape[-1]} pixels, the model reads {size}')
        if pixels.shape[-1] < size:
            pixels = F.interpolate(pixels, (size, size), mode='bilinear', align_corners=False)
        if self.config.image_mean is not None or self.config.image_std is not None:
            pixels = pixels * self.pixel_gain + self.pixel_lift
        return self.family.features(self.vlm, pixels.to(self.base_head.weight.dtype), camera)

    def embed_prompt(self, features: Tensor, text: Tensor, text_mask: Tensor,
                     camera: Tensor) -> tuple[Tensor, Tensor]:
        """Like :meth:`prompt`, from image tokens (B, N, (1 + deep) D)."""
        embed = self.vlm.get_input_embeddings()
        batch = len(text)
        begin = torch.full((batch, 1), self.config.codes, device=text.device)
        centred = (camera - self.camera_middle) * self.camera_gain
        view = self.camera(centred.to(self.base_head.weight.dtype))[:, None].to(features.dtype)
        tokens = torch.cat([features, self._widen(torch.cat(
            [view, embed(text), self.embed_base(begin)], dim=1))], dim=1)
        ones = torch.ones_like(text_mask[:, :1]).bool()
        mask = torch.cat([ones.expand(-1, features.shape[1] + 1), text_mask.bool(), ones], dim=1)
        return tokens, mask

    def embed_base(self, codes: Tensor) -> Tensor:
        """Base codes (B, W) -> embeddings (B, W, D); the code behind the last is "begin"."""
        if self.primitives is not None:
            return self.primitives(codes)
        return self.vlm.get_input_embeddings()(codes + self.config.text_vocabulary)

    def _widen(self, rows: Tensor) -> Tensor:
        """Rows (B, M, D) beside image tokens that carry further features: theirs are zero."""
        return F.pad(rows, (0, self.family.deep * rows.shape[-1])) if self.family.deep else rows

    def bias(self, mask: Tensor, prompt: int) -> Tensor:
        """Additive mask (B, 1, N, N) of rows ``mask`` (B, N), the first ``prompt`` the prompt."""
        return attention_bias(mask, prompt if self.family.bidirectional else 0)

    def run(self, tokens: Tensor, bias: Tensor, rows: Tensor,
            cache: DynamicCache | None = None) -> Tensor:
        """
        Run the layers up to the stated one.

        ``tokens`` (B, M, D) or (B, M, (1 + deep) D), ``bias`` (B, 1, M, N) additive, ``rows``
        (B, M) where in the sequence the tokens stand.  Returns the normalised states (B, M, D).
        """
        language = self.family.language(self.vlm)
        hidden, *deep = tokens.split(self.width, dim=-1)
        where = self.cos[rows].to(hidden.dtype), self.sin[rows].to(hidden.dtype)
        for n, layer in enumerate(language.layers):
            hidden = layer(hidden, attention_mask=bias, position_embeddings=where,
                           past_key_values=cache)
            if n < len(deep):
                hidden = hidden + deep[n]
        return self.norm(language.norm(hidden))

    def forward(self, pixels: Tensor, text: Tensor, text_mask: Tensor, camera: Tensor,
                base: Tensor) -> ReasonerOutput:
        """
        Run a teacher-forced pass with base codes ``base`` (B, W).

        Other arguments as :meth:`prompt`, but one picture may have several questions: ``pixels``
        (S, ...), B a multiple of S, rows grouped by picture.  Text and mask may be shorter than
        ``text_tokens``, without padding that all share; nothing but the count of rows changes.
        The output carries the answers of the grounding heads.  W may be 0: the prompt alone.
        """
        questions = len(text) // len(pixels)
        features = self.image_features(pixels, camera[::questions])
        tokens, mask = self.embed_prompt(features.repeat_interleave(questions, dim=0), text,
                                         text_mask, camera)
        out = self.teach(tokens, mask, base)
        out.grounding = self.grounding(features[..., :self.width], out.states, tokens.shape[1])
        return out

    def teach(self, tokens: Tensor, mask: Tensor, base: Tensor) -> ReasonerOutput:
        """Teacher-forced pass from an embedded prompt (B, P, D) and its mask."""
        batch, prompt, _ = tokens.shape
        windows = base.shape[1]
        mask = torch.cat([mask, mask.new_ones(batch, windows)], dim=1)
        # However short the text is, "begin" and the codes stand where they always do.
        start = self.prompt_rows - 1
        rows = torch.cat([torch.arange(prompt - 1, device=tokens.device),
                          torch.arange(start, start + 1 + windows, device=tokens.device)])
        bias = self.bias(mask, prompt)
        ask = self.queries is not None and windows == self.config.windows
        cache = DynamicCache() if ask else None
        tokens = torch.cat([tokens, self._widen(self.embed_base(base))], dim=1)
        states = self.run(tokens, bias.to(tokens.dtype), rows.expand(batch, -1), cache)
        parallel = None
        if ask:
            # In a pass of their own, which sees no code: keys and values of the prompt are there.
            cache.crop(-windows)
            parallel = self.ask(states[:, prompt - 1], bias[:, 0, prompt - 1, :prompt], cache)
        return ReasonerOutput(self.base_head(states[:, prompt - 1:-1]),
                              self.residual(states[:, prompt:]), states, mask, parallel=parallel)

    def residual(self, states: Tensor) -> Tensor:
        """Residual logits (B, W, levels - 1, codes) at primitive rows (B, W, D)."""
        batch, windows, _ = states.shape
        return self.residual_head(states).reshape(batch, windows, self.config.levels - 1,
                                                  self.config.codes)

    def ask(self, begin: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
        """
        Base logits (B, W, codes) of the queries.

        ``begin`` (B, D) is the state of the prompt's last row, ``mask`` (B, P) additive,
        ``cache`` the prompt; it grows by the queries' rows, which must not stay there.  Raises
        ValueError when the reasoner was not made for it.
        """
        if self.queries is None:
            raise ValueError('this reasoner was trained to decode autoregressively only')
        windows, prompt = self.config.windows, self.prompt_rows
        rows = torch.arange(prompt, prompt + windows, device=mask.device)
        bias = F.pad(mask, (0, windows))[:, None, None, :].expand(-1, -1, windows, -1)
        queries = self.queries(begin)
        states = self.run(queries, bias.to(queries.dtype), rows.expand(len(mask), -1), cache)
        # The first code follows from the prompt alone.
        return self.base_head(torch.cat([begin[:, None], states[:, 1:]], dim=1))

    @torch.no_grad()
    def generate(self, pixels: Tensor, text: Tensor, text_mask: Tensor, camera: Tensor,
                 decoder: str | None = None, refinements: int = 0
                 ) -> tuple[Tensor, Tensor, ReasonerOutput]:
        """
        Decode greedily: one base code a step, or all at once and ``refinements`` further passes.

        ``decoder`` is ``'autoregressive'`` or ``'parallel'``; by default the former, unless the
        reasoner was trained for the latter only.  Returns tokens (B, W, levels), confidence
        (B, W) and the output with the states.
        """
        if decoder is None:
            decoder = 'parallel' if self.config.decoder == 'parallel' else 'autoregressive'
        tokens, mask = self.prompt(pixels, text, text_mask, camera)
        batch, prompt, _ = tokens.shape
        windows = self.config.windows
        total = torch.cat([mask, mask.new_ones(batch, windows)], dim=1)
        bias = self.bias(total, prompt).to(tokens.dtype)
        rows = torch.arange(prompt + windows, device=tokens.device).expand(batch, -1)
        cache = DynamicCache()
        start = self.run(tokens, bias[:, :, :prompt, :prompt], rows[:, :prompt], cache)
        if decoder == 'parallel':
            base, chosen, states = self._at_once(start, bias, rows, cache, refinements)
        else:
            logits, codes, parts = [], [], [start]
            for n in range(windows):
                logits.append(self.base_head(parts[-1][:, -1:]))
                codes.append(logits[-1].argmax(-1))
                row = prompt + n
                parts.append(self.run(self.embed_base(codes[-1]),
                                      bias[:, :, row:row + 1, :row + 1], rows[:, row:row + 1],
                                      cache))
            base, chosen = torch.cat(logits, dim=1), torch.cat(codes, dim=1)
            states = torch.cat(parts, dim=1)
        residual = self.residual(states[:, prompt:])
        answer = torch.cat([chosen[..., None], residual.argmax(-1)], dim=-1)
        confidence = base.softmax(-1).amax(-1)
        return answer, confidence, ReasonerOutput(base, residual, states, total)

    def _at_once(self, start: Tensor, bias: Tensor, rows: Tensor, cache: DynamicCache,
                 refinements: int) -> tuple[Tensor, Tensor, Tensor]:
        """Base logits, the codes chosen by them, and the states of prompt and codes."""
        prompt = start.shape[1]
        base = self.ask(start[:, -1], bias[:, 0, prompt, :prompt], cache)
        for n in range(refinements + 1):
            cache.crop(-self.config.windows)
            chosen = base.argmax(-1)
            states = self.run(self.embed_base(chosen), bias[:, :, prompt:], rows[:, prompt:],
                              cache)
            if n < refinements:
                base = self.base_head(torch.cat([start[:, -1:], states[:, :-1]], dim=1))
        return base, chosen, torch.cat([start, states], dim=1)


def stated_layers(config: ReasonerConfig) -> PreTrainedConfig:
    """
    Return the Hugging Face configuration with the layers up to the stated one, and no more.

    Raises ValueError for an unknown ``model_type`` or a layer that the model does not have.
    """
    settings = dict(config.vlm)
    try:
        hf_config = AutoConfig.for_model(settings.pop('model_type', None), **settings)
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f'vlm configuration: {error}') from None
    text = hf_config.get_text_config()
    if not 1 <= config.layer <= text.num_hidden_layers:
        raise ValueError(f'layer {config.layer}: the model has {text.num_hidden_layers}')
    text.num_hidden_layers = config.layer
    if getattr(text, 'layer_types', None):
        text.layer_types = text.layer_types[:config.layer]
    return hf_config


def attention_bias(mask: Tensor, prompt: int) -> Tensor:
    """
    Additive mask (B, 1, N, N) of a sequence whose first ``prompt`` rows see each other.

    ``mask`` (B, N) is True where a row is real.
    """
    rows = mask.shape[1]
    order = torch.arange(rows, device=mask.device)
    allowed = (order[None, :] <= order[:, None]) | (order[None, :] < prompt)
    allowed = allowed[None] & mask[:, None, :]
    bias = torch.zeros(allowed.shape, device=mask.device)
    return bias.masked_fill(~allowed, FORBIDDEN)[:, None]
