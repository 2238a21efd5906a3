"""Text generation on a loaded model: one request at a time, in the calling thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from serve_apps.messages import Chunk, FinishReason, GenerationRequest, Refusal
from serve_apps.model.detokenize import TextStream

DEFAULT_COMPLETION_TOKENS = 16
"""What OpenAI's completions API generates when ``max_tokens`` is not given."""
DEFAULT_CHAT_TOKENS = 512

Emit = Callable[[Chunk], None]


@dataclass(frozen=True)
class Prepared:
    """A request that can be run: the prompt as tokens, and what to pass to ``generate``."""

    token_ids: tuple[int, ...]
    max_tokens: int
    stop: tuple[str, ...]
    seed: int | None
    sampling: dict[str, Any]


class _Sink:
    """Receives tokens from ``generate`` (transformers' streamer protocol) and tells it when to end."""

    def __init__(self, text: TextStream, emit: Emit, cancelled: threading.Event) -> None:
        self._text = text
        self._emit = emit
        self._cancelled = cancelled
        self._seen_prompt = False
        self.token_ids: list[int] = []

    def put(self, value: Any) -> None:
        if not self._seen_prompt:
            self._seen_prompt = True
            return
        for token_id in value.reshape(-1).tolist():
            self.token_ids.append(token_id)
            piece = self._text.push(token_id)
            if piece:
                self._emit(Chunk(text=piece))

    def end(self) -> None:
        """Nothing to flush: the last piece goes out with the counts."""

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """A stopping criterion: asked after each token, answers per row of the batch."""
        import torch

        done = self._cancelled.is_set() or self._text.stopped
        return torch.full((input_ids.shape[0],), done, dtype=torch.bool, device=input_ids.device)


class Generator:
    """Generates text with ``model``, nnsight's wrapper around a causal language model."""

    def __init__(self, model: Any) -> None:
        self._module = model._module
        self._tokenizer = model.tokenizer
        self._task = model.task
        self.context_length = context_length(self._module.config)

    @property
    def can_generate(self) -> bool:
        return self._tokenizer is not None and bool(self._module.can_generate())

    def prepare(self, request: GenerationRequest) -> Prepared | Refusal:
        """Tokenizes and checks a request; what is wrong with it comes back as a ``Refusal``."""
        if not self.can_generate:
            return Refusal(message=f"This model does not generate text: its task is {self._task}.")
        token_ids = self._tokenize(request)
        if isinstance(token_ids, Refusal):
            return token_ids
        room = self._room(len(token_ids), request.max_tokens)
        if isinstance(room, Refusal):
            return room
        default = DEFAULT_CHAT_TOKENS if request.messages is not None else DEFAULT_COMPLETION_TOKENS
        wanted = request.max_tokens or default
        return Prepared(
            token_ids=token_ids,
            max_tokens=wanted if room is None else min(wanted, room),
            stop=request.stop,
            seed=request.seed,
            sampling=self._sampling(request),
        )

    def run(self, prepared: Prepared, emit: Emit, cancelled: threading.Event) -> None:
        """Generates, passing each piece to ``emit`` as soon as it is certain.

        The last chunk carries the finish reason and the counts; none comes after ``cancelled``,
        which is looked at after every token.
        """
        import torch

        device = self._module.device
        input_ids = torch.tensor([prepared.token_ids], device=device)
        text = TextStream(self._decode, prepared.stop)
        sink = _Sink(text, emit, cancelled)
        cuda = [device] if device.type == "cuda" else []
        # the random state is the request's own, and the next one's is not what this one left
        with torch.random.fork_rng(devices=cuda), torch.inference_mode():
            torch.manual_seed(torch.seed() if prepared.seed is None else prepared.seed)
            self._module.generate(
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                max_new_tokens=prepared.max_tokens,
                streamer=sink,
                stopping_criteria=[sink],
                pad_token_id=self._tokenizer.pad_token_id,
                **prepared.sampling,
            )
        if cancelled.is_set():
            return
        rest = text.finish()
        ended = text.stopped or (bool(sink.token_ids) and sink.token_ids[-1] in self._end_ids())
        reason: FinishReason = "stop" if ended else "length"
        emit(
            Chunk(
                text=rest,
                finish_reason=reason,
                prompt_tokens=len(prepared.token_ids),
                completion_tokens=len(sink.token_ids),
            )
        )

    def _tokenize(self, request: GenerationRequest) -> tuple[int, ...] | Refusal:
        if request.messages is not None:
            return self._tokenize_chat(request.messages)
        if request.token_ids is not None:
            size = self._module.config.get_text_config().vocab_size
            if any(not 0 <= token_id < size for token_id in request.token_ids):
                return Refusal(message=f"A token id is not between 0 and {size - 1}.", param="prompt")
            return request.token_ids or _empty_prompt()
        return tuple(self._tokenizer(request.prompt or "", verbose=False)["input_ids"]) or _empty_prompt()

    def _tokenize_chat(self, messages: Sequence[dict[str, Any]]) -> tuple[int, ...] | Refusal:
        if not getattr(self._tokenizer, "chat_template", None):
            return Refusal(
                message="This model has no chat template: it was not trained for conversations. "
                "Use /v1/completions.",
                param="messages",
            )
        from jinja2 import TemplateError

        try:
            encoded = self._tokenizer.apply_chat_template(
                list(messages), add_generation_prompt=True, tokenize=True, return_dict=True
            )
        except (TemplateError, TypeError, ValueError) as error:
            # templates refuse what they do not know, such as a role, in their own words
            return Refusal(message=f"The model's chat template refused: {error}", param="messages")
        return tuple(encoded["input_ids"])

    def _room(self, prompt_tokens: int, max_tokens: int | None) -> int | Refusal | None:
        """How many tokens may be generated; None where the model has no limit."""
        if self.context_length is None:
            return None
        room = self.context_length - prompt_tokens
        if room < 1 or (max_tokens is not None and max_tokens > room):
            asked = f" and {max_tokens} to generate" if max_tokens is not None else ""
            return Refusal(
                message=f"This model's context holds {self.context_length} tokens; the prompt has "
                f"{prompt_tokens}{asked}. Shorten the prompt or lower max_tokens.",
                code="context_length_exceeded",
                param="prompt" if room < 1 else "max_tokens",
            )
        return room

    def _sampling(self, request: GenerationRequest) -> dict[str, Any]:
        if request.temperature == 0:
            return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        chosen = {"temperature": request.temperature, "top_p": request.top_p}
        sampling = {name: value for name, value in chosen.items() if value is not None}
        # OpenAI's API samples unless told otherwise, transformers does not
        return {"do_sample": True, **sampling}

    def _decode(self, token_ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(
            list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)

    def _end_ids(self) -> set[int]:
        ends = self._module.generation_config.eos_token_id
        if ends is None:
            return set()
        return set(ends) if isinstance(ends, list) else {ends}


def context_length(config: Any) -> int | None:
    """How many tokens a model's positions reach, by its config; None where there is no such limit."""
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else None


def _empty_prompt() -> Refusal:
    return Refusal(message="The prompt is empty.", param="prompt")
