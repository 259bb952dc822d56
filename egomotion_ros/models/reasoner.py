# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Stage 1: a vision-language model that answers in motion primitives (EgoMotion, arXiv 2604.19105).

Any Hugging Face image-text-to-text model takes part through three things that they share: token
embeddings, ``get_image_features`` and a decoder ``model.language_model``.  The sequence is

    [image tokens | camera | instruction, padded | begin | 19 base codes]

with attention in both directions inside the prompt (as PaliGemma's prefix) and causal over the
primitives.  The base code of window k is predicted at row ``begin + k``; the residual codes of
window k by parallel heads at the row of its base code, which therefore see it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, DynamicCache

from egomotion_ros.models import vlm as _vlm  # noqa: F401  (registers the default family)
from egomotion_ros.models.grounding import Grounding, GroundingHeads
from egomotion_ros.types import PLAN_WINDOWS

#: Additive attention mask value of a forbidden pair; finite, so that fp16 stays finite too.
FORBIDDEN = -1e4


@dataclass(frozen=True)
class ReasonerConfig:
    """
    What turns a vision-language model into a reasoner.

    ``vlm`` is the Hugging Face configuration (a dict with ``model_type``), ``layer`` the hidden
    layer whose states are handed out and at which the heads sit (0 = embeddings; layers above it
    are not run), ``text_tokens`` the padded length of an instruction,
    ``colours`` and ``shapes`` how many the grounding heads tell apart.
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


@dataclass
class ReasonerOutput:
    """
    Logits and states of one forward pass.

    ``base`` (B, W, codes), ``residual`` (B, W, levels - 1, codes), ``states`` (B, P + W, D) of the
    stated layer, ``mask`` (B, P + W).
    """

    base: Tensor
    residual: Tensor
    states: Tensor
    mask: Tensor
    grounding: Grounding | None = None


class Reasoner(nn.Module):
    """Image, instruction and camera pose -> primitives and hidden states."""

    def __init__(self, config: ReasonerConfig) -> None:
        super().__init__()
        self.config = config
        settings = dict(config.vlm)
        hf_config = AutoConfig.for_model(settings.pop('model_type'), **settings)
        self.vlm = AutoModelForImageTextToText.from_config(hf_config)
        text = hf_config.get_text_config()
        width = text.hidden_size
        if not 1 <= config.layer <= text.num_hidden_layers:
            raise ValueError(f'layer {config.layer}: the model has {text.num_hidden_layers}')
        # The primitive vocabulary: one row per base code behind the text, then "begin".
        self.vlm.resize_token_embeddings(config.text_vocabulary + config.codes + 1,
                                         mean_resizing=False)
        self.vlm.model.language_model.layers = self.vlm.model.language_model.layers[:config.layer]
        text.num_hidden_layers = config.layer
        self.camera = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width))
        self.norm = nn.RMSNorm(width)
        self.base_head = nn.Linear(width, config.codes)
        self.residual_head = nn.Linear(width, (config.levels - 1) * config.codes)
        self.grounding = GroundingHeads(width, config.colours, config.shapes)

    @property
    def width(self) -> int:
        """Width of a state row."""
        return self.vlm.config.get_text_config().hidden_size

    def prompt(self, pixels: Tensor, text: Tensor, text_mask: Tensor,
               camera: Tensor) -> tuple[Tensor, Tensor]:
        """
        Embed the prompt.

        ``pixels`` (B, 3, S, S) in [-1, 1], ``text`` (B, text_tokens) ids, ``text_mask`` the same
        shape, ``camera`` (B, 3) height m, pitch rad, yaw rad.  Returns embeddings (B, P, D) and
        mask (B, P).
        """
        return self.embed_prompt(self.image_features(pixels), text, text_mask, camera)

    def image_features(self, pixels: Tensor) -> Tensor:
        """Image tokens (B, N, D) of the vision part."""
        features = self.vlm.get_image_features(pixels)
        return features if isinstance(features, Tensor) else features.pooler_output

    def embed_prompt(self, features: Tensor, text: Tensor, text_mask: Tensor,
                     camera: Tensor) -> tuple[Tensor, Tensor]:
        """Like :meth:`prompt`, from image tokens (B, N, D)."""
        embed = self.vlm.get_input_embeddings()
        batch = len(text)
        begin = torch.full((batch, 1), self.config.text_vocabulary + self.config.codes,
                           device=text.device)
        # Height around standing eye level, angles as they are: all of order one.
        centred = (camera - camera.new_tensor([1.5, 0.4, 0.0])) * camera.new_tensor([4., 3., 3.])
        tokens = torch.cat([features, self.camera(centred)[:, None].to(features.dtype),
                            embed(text), embed(begin)], dim=1)
        ones = torch.ones_like(text_mask[:, :1]).bool()
        mask = torch.cat([ones.expand(-1, features.shape[1] + 1), text_mask.bool(), ones], dim=1)
        return tokens, mask

    def embed_base(self, codes: Tensor) -> Tensor:
        """Base codes (B, W) -> embeddings (B, W, D)."""
        return self.vlm.get_input_embeddings()(codes + self.config.text_vocabulary)

    def run(self, tokens: Tensor, bias: Tensor, positions: Tensor,
            cache: DynamicCache | None = None) -> Tensor:
        """
        Run the layers up to the stated one.

        ``tokens`` (B, M, D), ``bias`` (B, 1, M, N) additive, ``positions`` (B, M).  Returns the
        normalised states (B, M, D).
        """
        out = self.vlm.model.language_model(
            inputs_embeds=tokens, attention_mask=bias, position_ids=positions,
            past_key_values=cache, use_cache=cache is not None)
        return self.norm(out.last_hidden_state)

    def forward(self, pixels: Tensor, text: Tensor, text_mask: Tensor, camera: Tensor,
                base: Tensor) -> ReasonerOutput:
        """
        Run a teacher-forced pass with base codes ``base`` (B, W).

        Other arguments as :meth:`prompt`, but one picture may have several questions: ``pixels``
        (S, ...), B a multiple of S, rows grouped by picture.  The output carries the answers of
        the grounding heads.  W may be 0: the prompt alone.
        """
        features = self.image_features(pixels)
        questions = len(text) // len(features)
        tokens, mask = self.embed_prompt(features.repeat_interleave(questions, dim=0), text,
                                         text_mask, camera)
        out = self.teach(tokens, mask, base)
        out.grounding = self.grounding(features, out.states, tokens.shape[1])
        return out

    def teach(self, tokens: Tensor, mask: Tensor, base: Tensor) -> ReasonerOutput:
        """Teacher-forced pass from an embedded prompt (B, P, D) and its mask."""
        batch, prompt, _ = tokens.shape
        windows = base.shape[1]
        tokens = torch.cat([tokens, self.embed_base(base)], dim=1)
        mask = torch.cat([mask, mask.new_ones(batch, windows)], dim=1)
        positions = torch.arange(prompt + windows, device=tokens.device).expand(batch, -1)
        states = self.run(tokens, attention_bias(mask, prompt).to(tokens.dtype), positions)
        return ReasonerOutput(self.base_head(states[:, prompt - 1:-1]),
                              self.residual(states[:, prompt:]), states, mask)

    def residual(self, states: Tensor) -> Tensor:
        """Residual logits (B, W, levels - 1, codes) at primitive rows (B, W, D)."""
        batch, windows, _ = states.shape
        return self.residual_head(states).reshape(batch, windows, self.config.levels - 1,
                                                  self.config.codes)

    @torch.no_grad()
    def generate(self, pixels: Tensor, text: Tensor, text_mask: Tensor,
                 camera: Tensor) -> tuple[Tensor, Tensor, ReasonerOutput]:
        """
        Decode greedily, one base code a step.

        Returns tokens (B, W, levels), confidence (B, W) and the output with the states.
        """
        tokens, mask = self.prompt(pixels, text, text_mask, camera)
        batch, prompt, _ = tokens.shape
        windows = self.config.windows
        total = torch.cat([mask, mask.new_ones(batch, windows)], dim=1)
        bias = attention_bias(total, prompt).to(tokens.dtype)
        positions = torch.arange(prompt + windows, device=tokens.device).expand(batch, -1)
        cache = DynamicCache(config=self.vlm.config.get_text_config())
        states = [self.run(tokens, bias[:, :, :prompt, :prompt], positions[:, :prompt], cache)]
        logits, chosen = [], []
        for n in range(windows):
            logits.append(self.base_head(states[-1][:, -1:]))
            chosen.append(logits[-1].argmax(-1))
            row = prompt + n
            states.append(self.run(self.embed_base(chosen[-1]), bias[:, :, row:row + 1, :row + 1],
                                   positions[:, row:row + 1], cache))
        everything = torch.cat(states, dim=1)
        base = torch.cat(logits, dim=1)
        residual = self.residual(everything[:, prompt:])
        codes = torch.cat([torch.cat(chosen, 1)[..., None], residual.argmax(-1)], dim=-1)
        confidence = base.softmax(-1).amax(-1)
        return codes, confidence, ReasonerOutput(base, residual, everything, total)


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
