"""What `accelerate` makes of a Hugging Face ELECTRA: subclasses of its own classes, with another forward pass.

They carry the names of their parents, so that what goes by class names (``config.architectures``, pipelines, sharding
by layer class) finds what it knows. Replaced parts are respected: an adapter around a linear layer, another norm, a
hook on the embeddings are called where the plain ones would be fused.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
from transformers.models.electra import modeling_electra as hf

from electra_fast.nn.attention import self_attention
from electra_fast.nn.embeddings import embed
from electra_fast.nn.feed_forward import widen_and_project
from electra_fast.nn.layer_norm import add_and_norm, project_and_norm
from electra_fast.nn.linear import is_plain
from electra_fast.nn.packed import encode_packed
from electra_fast.nn.packing import Packing, pack_mask, whole_batch
from electra_fast.rng import fresh

_ROWS = 64
_GELU = type(ACT2FN["gelu"])
_IGNORED = ("use_cache", "num_items_in_batch", "output_router_logits")  # no effect on an encoder's forward pass
_GRADIENT_HOOK = "make_inputs_require_grads"  # of enable_input_require_grads, for checkpointing and adapters
_warned: set[str] = set()


@dataclass(frozen=True)
class _Batch:
    """What the layers need to know of a batch: packed queries, the rows among them that may be seen, and the draws."""

    cu_seqlens: Tensor
    max_seqlen: int
    keys: Tensor | None
    cu_seqlens_k: Tensor | None
    rng: Tensor | None


class ElectraLayer(hf.ElectraLayer):
    """`transformers`' layer, on packed rows ``[T, N]`` when it is given a batch."""

    @property
    def is_exact_gelu(self) -> bool:
        """Whether the activation is the one that our kernels have."""
        return type(self.intermediate.intermediate_act_fn) is _GELU

    def forward(self, hidden_states, *args, batch: _Batch | None = None, site: int = 0, **kwargs):
        """As the parent's; with ``batch``, which only `ElectraModel` gives, ``[T, N]`` to ``[T, N]``."""
        if batch is None:
            return super().forward(hidden_states, *args, **kwargs)
        attention = self.attention.self
        context = self_attention(
            attention,
            hidden_states,
            batch.cu_seqlens,
            batch.max_seqlen,
            dropout_p=_rate(attention.dropout),
            rng=batch.rng,
            site=site,
            keys=batch.keys,
            cu_seqlens_k=batch.cu_seqlens_k,
        )
        hidden = _output(self.attention.output, context, hidden_states, batch.rng, site + 1)
        if self.is_exact_gelu and is_plain(self.output.LayerNorm, nn.LayerNorm):
            y, bias = widen_and_project(hidden, self.intermediate.dense, self.output.dense)
            rate = _rate(self.output.dropout)
            return add_and_norm(y, bias, hidden, self.output.LayerNorm, dropout_p=rate, rng=batch.rng, site=site + 2)
        return _output(self.output, self.intermediate(hidden), hidden, batch.rng, site + 2)


class ElectraModel(hf.ElectraModel):
    """`transformers`' encoder: packs once, before the embeddings, and unpacks once, after the last layer."""

    padding: str
    head_reads_first_token: bool
    int8: bool

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *args: Any,
        inputs_embeds: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> tuple | BaseModelOutputWithPastAndCrossAttentions:
        """As the parent's."""
        tokens = input_ids if inputs_embeds is None else inputs_embeds[..., 0]
        reason = self._not_covered(tokens, attention_mask, args, kwargs)
        if reason is not None or (input_ids is None) == (inputs_embeds is None):
            _warn_once(reason)
            for name, value in (("inputs_embeds", inputs_embeds), ("return_dict", return_dict)):
                if value is not None:
                    kwargs[name] = value
            return super().forward(input_ids, attention_mask, token_type_ids, position_ids, *args, **kwargs)
        packing, batch = self._batch(tokens, attention_mask)
        embedded = self._embed(packing, batch.rng, tokens, token_type_ids, position_ids, inputs_embeds)
        output_hidden_states = kwargs.get("output_hidden_states")
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        project = getattr(self, "embeddings_project", None)
        hidden, all_hidden = None, []
        if batch.keys is None and not output_hidden_states:
            if self.int8 and project is not None:  # the products of bytes are the layers' alone
                embedded, project = _project(project, embedded), None
            hidden = self._encode_packed(embedded, batch, project)
        if hidden is None:
            hidden = embedded if project is None else _project(project, embedded)
            all_hidden.append(hidden)
            for i, layer in enumerate(self.encoder.layer):
                hidden = layer(hidden, batch=batch, site=1 + 3 * i)
                all_hidden.append(hidden)

        outputs = BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=packing.unpack(hidden),
            hidden_states=tuple(packing.unpack(x) for x in all_hidden) if output_hidden_states else None,
        )
        return outputs if (self.config.return_dict if return_dict is None else return_dict) else outputs.to_tuple()

    def _encode_packed(self, embedded: Tensor, batch: _Batch, project: nn.Module | None) -> Tensor | None:
        """The projection, if there is one left, and all layers in one call, where that can be."""
        if any(module._forward_hooks or module._forward_pre_hooks for module in (self.encoder, self.encoder.layer)):
            return None
        products = torch.int8 if self.int8 else None
        return encode_packed(
            self, self.encoder.layer, embedded, batch.cu_seqlens, batch.max_seqlen, products, projection=project
        )

    def _not_covered(self, tokens: Tensor | None, mask: Tensor | None, args: tuple, kwargs: dict) -> str | None:
        """None, or what of this call the packed path does not do."""
        given = [name for name, value in kwargs.items() if value is not None and value is not False]
        given = [name for name in given if name not in _IGNORED]
        if kwargs.get("output_hidden_states") is True:  # a list of layers is another matter
            given.remove("output_hidden_states")
        if args or given:
            return ", ".join(given) or "positional arguments after position_ids"
        if self.config.is_decoder:
            return "is_decoder"
        if getattr(self.config, "output_attentions", False):
            return "output_attentions"
        if getattr(self.config, "position_embedding_type", "absolute") != "absolute":
            return "position_embedding_type"
        if mask is not None and tokens is not None and mask.shape != tokens.shape:
            return f"an attention mask of {mask.ndim} dimensions"
        return None

    def _batch(self, tokens: Tensor, mask: Tensor | None) -> tuple[Packing, _Batch]:
        length = tokens.shape[1]
        rng = fresh(tokens.device) if self.training else None
        whole, _, _ = whole_batch(tokens)
        if mask is None:
            return whole, _Batch(whole.cu_seqlens, length, None, None, rng)
        packing = pack_mask(mask)
        if self.padding == "keep" or (self.head_reads_first_token and _left_padded(mask)):
            return whole, _Batch(whole.cu_seqlens, length, packing.index, packing.cu_seqlens, rng)
        return packing, _Batch(packing.cu_seqlens, length, None, None, rng)

    def _embed(self, packing, rng, tokens, token_type_ids, position_ids, inputs_embeds) -> Tensor:
        """Packed ``[T, E]``."""
        shape = tokens.shape
        positions = types = None
        if packing.index is None:
            _, positions, types = whole_batch(tokens)
        if position_ids is not None or positions is None:
            if position_ids is None:
                position_ids = torch.arange(shape[1], device=tokens.device)
            positions = packing.pack(position_ids.expand(shape))
        if token_type_ids is not None:
            types = packing.pack(token_type_ids.expand(shape))
        elif types is None:
            types = torch.zeros_like(positions)
        embeddings = self.embeddings
        if inputs_embeds is None and type(embeddings) is hf.ElectraEmbeddings and _plain_tables(embeddings):
            rate = _rate(embeddings.dropout)
            hidden = embed(embeddings, packing.pack(tokens), positions, types, dropout_p=rate, rng=rng, site=0)
            if embeddings.word_embeddings._forward_hooks and not hidden.requires_grad:
                hidden.requires_grad_()
            return hidden
        ids = packing.pack(tokens).unsqueeze(0) if inputs_embeds is None else None
        vectors = None if inputs_embeds is None else packing.pack(inputs_embeds).unsqueeze(0)
        return embeddings(
            input_ids=ids,
            token_type_ids=types.unsqueeze(0),
            position_ids=positions.unsqueeze(0),
            inputs_embeds=vectors,
        ).squeeze(0)


def convert(model: nn.Module, padding: str, int8: bool) -> None:
    """Turn every `transformers` ``ElectraModel`` in ``model``, and its layers, into the classes above."""
    networks = [module for module in model.modules() if isinstance(module, hf.ElectraModel)]
    if not networks:
        raise TypeError(f"accelerate: model must be, or contain, a Hugging Face ELECTRA, got {type(model).__name__}")
    summaries = [module for module in model.modules() if isinstance(module, hf.ElectraSequenceSummary)]
    if padding == "drop" and any(summary.summary_type != "first" for summary in summaries):
        raise ValueError(
            f"accelerate: {type(model).__name__} has a summary_type that reads padding ('last', 'mean', …): "
            "use padding='keep'"
        )
    reads_first = bool(summaries) or any(isinstance(module, hf.ElectraClassificationHead) for module in model.modules())
    for network in networks:
        for parent, child in ((hf.ElectraModel, ElectraModel), (hf.ElectraLayer, ElectraLayer)):
            for module in network.modules():
                replaced = type(module) not in (parent, child) or "forward" in module.__dict__
                if isinstance(module, parent) and replaced:
                    raise TypeError(
                        f"accelerate: the forward pass of {type(module).__name__} is not transformers' own and would "
                        "be lost: accelerate the model before anything wraps it"
                    )
    for network in networks:
        network.__class__ = ElectraModel
        network.padding = padding
        network.head_reads_first_token = reads_first
        network.int8 = int8
        for layer in network.encoder.layer:
            layer.__class__ = ElectraLayer


def _project(project: nn.Module, embedded: Tensor) -> Tensor:
    """``embeddings_project``; in inference in low precision on the CPU on a multiple of 64 rows.

    There oneDNN compiles a kernel for each number of rows and keeps a thousand of them, half a MiB each.
    """
    missing = -len(embedded) % _ROWS
    stays = embedded.requires_grad or torch.is_grad_enabled() or torch.compiler.is_compiling()
    if not missing or stays or embedded.device.type != "cpu" or embedded.dtype is torch.float32:
        return project(embedded)
    if not is_plain(project, nn.Linear):
        return project(embedded)
    return project(nn.functional.pad(embedded, (0, 0, 0, missing)))[:-missing]


def _output(block: nn.Module, x: Tensor, residual: Tensor, rng: Tensor | None, site: int) -> Tensor:
    """An ``ElectraSelfOutput`` or ``ElectraOutput``: ``LN(residual + dropout(dense(x)))``."""
    if not is_plain(block.LayerNorm, nn.LayerNorm):
        return block(x, residual)
    rate = _rate(block.dropout)
    return project_and_norm(x, residual, block.dense, block.LayerNorm, dropout_p=rate, rng=rng, site=site)


def _plain_tables(embeddings: nn.Module) -> bool:
    """Whether the tables can be read in one pass. (A hook of `transformers` that asks for a gradient does no harm.)"""
    parts = (
        (embeddings.word_embeddings, nn.Embedding, _GRADIENT_HOOK),
        (embeddings.position_embeddings, nn.Embedding, None),
        (embeddings.token_type_embeddings, nn.Embedding, None),
        (embeddings.LayerNorm, nn.LayerNorm, None),
    )
    return all(is_plain(part, kind, hook) for part, kind, hook in parts)


def _rate(dropout: nn.Module) -> float:
    return dropout.p if dropout.training else 0.0


def _left_padded(mask: Tensor) -> bool:
    """Whether some row's first token is masked; while compiling, when values cannot be read, it is taken not to be."""
    return not torch.compiler.is_compiling() and not bool((mask[:, 0] != 0).all())


def _warn_once(reason: str | None) -> None:
    if reason is not None and reason not in _warned:
        _warned.add(reason)
        warnings.warn(
            f"electra_fast.accelerate does not cover {reason}: running transformers' own forward", stacklevel=3
        )


# transformers notes what a class can record (attentions, for the original forward pass) when one is made; a class that
# objects are turned into, or unpickled as, would never be. So one is made, of no size.
with torch.device("meta"):
    ElectraModel(hf.ElectraConfig(vocab_size=1, num_hidden_layers=1, max_position_embeddings=1))
