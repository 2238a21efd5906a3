"""Rows of several texts say what each text alone would, on architectures of every kind."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import pytest

from serve_apps.model.rows import BatchedRows, SingleRows, choose_rows
from serve_apps.model.sampling import HEAD, RowChoice, SamplingRules, choose
from tests.lazily import Lazily

torch = Lazily("torch")
transformers = Lazily("transformers")

SMALL: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 64, "pad_token_id": 0,
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any], type]] = {
    "llama": ("LlamaForCausalLM", {}, BatchedRows),
    "qwen2": ("Qwen2ForCausalLM", {"use_sliding_window": False}, BatchedRows),
    "gpt-2": ("GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}, BatchedRows),
    "neox": ("GPTNeoXForCausalLM", {}, BatchedRows),
    "sliding": ("MistralForCausalLM", {"sliding_window": 4}, SingleRows),
    "some sliding": (
        "Gemma2ForCausalLM",
        {"sliding_window": 4, "head_dim": 8, "attn_implementation": "eager"},
        SingleRows,
    ),
    "alibi": ("BloomForCausalLM", {"n_layer": 2, "n_head": 4}, SingleRows),
}


def make(name: str) -> tuple[Any, type]:
    class_name, changes, kind = MODELS[name]
    model_class = getattr(transformers, class_name)
    torch.manual_seed(0)
    settings = {**SMALL, **changes}
    attention = settings.pop("attn_implementation", None)
    config = model_class.config_class(**settings)
    if attention:
        config._attn_implementation = attention
    return model_class(config).eval(), kind


def greedy(model: Any, prompt: list[int], count: int) -> list[int]:
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("name", MODELS)
def test_rows_come_and_go_and_say_what_they_would_alone(name: str) -> None:
    model, kind = make(name)
    rows = choose_rows(model)
    assert type(rows) is kind
    chance = random.Random(1)
    prompts = [[chance.randrange(1, 97) for _ in range(size)] for size in (3, 11, 6, 20, 1)]
    expected = [greedy(model, prompt, 12) for prompt in prompts]
    said: list[list[int]] = [[] for _ in prompts]

    def take(texts: list[int], logits: Any) -> None:
        for text, token in zip(texts, logits.argmax(-1).tolist(), strict=True):
            said[text].append(token)

    with torch.inference_mode():
        take([0, 1], rows.begin([0, 1], prompts[:2]))
        rows.show(3, prompts[3][:8], True)
        for _ in range(3):
            take([1, 0], rows.step([1, 0], [said[1][-1], said[0][-1]]))
        take([3], rows.show(3, prompts[3][8:], False)[None])
        take([2, 4], rows.begin([2, 4], [prompts[2], prompts[4]]))
        rows.drop(0)
        for _ in range(8):
            order = [4, 1, 3, 2]
            take(order, rows.step(order, [said[text][-1] for text in order]))
        rows.drop(1)
        take([2, 3], rows.step([2, 3], [said[2][-1], said[3][-1]]))
    for text, words in enumerate(said):
        assert words == expected[text][: len(words)], f"text {text}"
    assert [len(words) for words in said] == [4, 12, 10, 10, 9]


def test_memory_is_reckoned_as_it_is_taken() -> None:
    model, _ = make("llama")
    rows = choose_rows(model)
    with torch.inference_mode():
        rows.begin(["a", "b", "c"], [[1, 2], [3], [4, 5]])
        assert isinstance(rows, BatchedRows)
        blocks = [*rows._cache._keys, *rows._cache._values]
        taken = sum(block.numel() * block.element_size() for block in blocks)
        assert rows.bytes_for(3, 100) == taken > 0
        assert rows.bytes_for(5, 200) == 4 * taken
        for row in "abc":
            rows.drop(row)
    assert rows.bytes_for(1, 1) == 0


def draws(rules: SamplingRules, logits: list[float], count: int = 400) -> list[int]:
    row = RowChoice(rules, [])
    return [choose(torch.tensor([logits]), [row])[0].token_id for _ in range(count)]


class TestChoosing:
    logits: ClassVar = [2.0, 1.0, 0.0, -1.0]

    def test_tokens_come_as_often_as_they_are_likely(self) -> None:
        drawn = draws(SamplingRules(seed=1), self.logits, 4000)
        expected = torch.tensor(self.logits).softmax(-1).tolist()
        for token, share in enumerate(expected):
            assert abs(drawn.count(token) / len(drawn) - share) < 0.03

    @pytest.mark.parametrize(
        ("rules", "possible"),
        [
            (SamplingRules(temperature=0), {0}),
            (SamplingRules(seed=1, top_k=2), {0, 1}),
            # 0.64 and 0.24 of the probability: what reaches top_p still belongs to it
            (SamplingRules(seed=1, top_p=0.5), {0}),
            (SamplingRules(seed=1, top_p=0.7), {0, 1}),
            (SamplingRules(seed=1, min_p=0.2), {0, 1}),
            (SamplingRules(seed=1, logit_bias=((3, 100.0),)), {3}),
            (SamplingRules(temperature=0, logit_bias=((0, -100.0),)), {1}),
        ],
    )
    def test_what_is_left_out_never_comes(self, rules: SamplingRules, possible: set[int]) -> None:
        assert set(draws(rules, self.logits)) == possible

    def test_penalties_look_at_what_was_said(self) -> None:
        rules = SamplingRules(temperature=0, frequency_penalty=0.6)
        assert draws(rules, self.logits, 4) == [0, 0, 1, 0]
        assert draws(SamplingRules(temperature=0, presence_penalty=1.5), self.logits, 3) == [0, 1, 0]
        row = RowChoice(SamplingRules(temperature=0, repetition_penalty=3), [0])
        assert choose(torch.tensor([self.logits]), [row])[0].token_id == 1

    def test_a_seed_says_the_same_whoever_stands_beside(self) -> None:
        logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
        alone = RowChoice(SamplingRules(seed=7), [])
        first = [choose(logits[:1].clone(), [alone])[0].token_id for _ in range(20)]
        beside = [RowChoice(SamplingRules(seed=seed, top_p=0.9), []) for seed in (1, 2)]
        again = RowChoice(SamplingRules(seed=7), [])
        second = [choose(logits.clone(), [again, *beside])[0].token_id for _ in range(20)]
        assert first == second

    def test_the_head_of_the_order_decides_as_the_whole_would(self, monkeypatch: pytest.MonkeyPatch) -> None:
        logits = (4 * torch.randn(1, HEAD + 500, generator=torch.Generator().manual_seed(0))).tolist()[0]
        rules = SamplingRules(seed=3, top_p=0.8)
        by_head = draws(rules, logits, 50)
        monkeypatch.setattr("serve_apps.model.sampling.HEAD", len(logits))
        assert draws(rules, logits, 50) == by_head

    def test_log_probabilities_are_the_models_own(self) -> None:
        rules = SamplingRules(temperature=0, logprobs=2, logit_bias=((3, 100.0),))
        chosen = choose(torch.tensor([self.logits]), [RowChoice(rules, [])])[0]
        expected = torch.tensor(self.logits).log_softmax(-1).tolist()
        assert chosen.token_id == 3
        assert chosen.logprob == pytest.approx(expected[3])
        assert [token for token, _ in chosen.top] == [0, 1]
        assert [value for _, value in chosen.top] == pytest.approx(expected[:2])


def test_a_model_nothing_can_run_writes_no_texts() -> None:
    model, _ = make("llama")

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    model.forward = broken
    assert choose_rows(model) is None
