"""What a person may write, and what they are told where it cannot be understood."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from calendars.event_text import (
    FIELDS,
    MAX_DESCRIPTION_CHARACTERS,
    Problem,
    parse_event,
    plain_text,
    render_request,
)
from calendars.reservation import MAX_GPUS, MAX_PRIORITY, MAX_REPLICAS, MODEL_CLASS, ModelRequest

REPO = "HuggingFaceTB/SmolLM2-135M-Instruct"
KEY = MODEL_CLASS + ':{"repo_id": "a/b", "revision": null, "task": "text-generation"}'


def asks(model: str = REPO, **fields: object) -> ModelRequest:
    return ModelRequest.model_validate({"model": model, **fields})


UNDERSTOOD = {
    "title alone: alias": ("SmolLM2-135M-Instruct", "", asks("SmolLM2-135M-Instruct")),
    "title alone: repo id": (REPO, "", asks()),
    "title with spaces around it": (f"  {REPO} ", "", asks()),
    "title in backticks": (f"`{REPO}`", "", asks()),
    "title is a line": (f"model: {REPO}", "", asks()),
    "title is a model key": (KEY, "", asks("a/b", task="text-generation")),
    "title names the model, description the rest": ("gpt2", "replicas: 3", asks("gpt2", replicas=3)),
    "title is free once the description names a model": ("Team lunch", f"model: {REPO}", asks()),
    "a title that could be a name gives way": ("Lunch", f"model: {REPO}", asks()),
    "every line": (
        "x",
        "model: a/b\nrevision: refs/pr/7\ntask: text-generation\n"
        "replicas: 2\ndtype: bf16\ngpus: 1\naccelerator: A100  80GB\npriority: -5",
        asks(
            "a/b",
            revision="refs/pr/7",
            task="text-generation",
            replicas=2,
            dtype="bfloat16",
            gpus=1,
            accelerator="A100 80GB",
            priority=-5,
        ),
    ),
    "case, bullets, equals signs, quotes": (
        "x",
        '  - Model = "a/b"\n* REPLICAS=2\n• dtype :  `fp16`',
        asks("a/b", replicas=2, dtype="float16"),
    ),
    "a hyphen in a key": ("gpt2", "trust-remote-code: true", asks("gpt2", trust_remote_code=True)),
    "private": ("gpt2", "private: yes", asks("gpt2", private=True)),
    "not private, said so": ("gpt2", "Private: No", asks("gpt2")),
    "private left blank": ("gpt2", "private:", asks("gpt2")),
    "a Hub address": ("x", f"model: https://huggingface.co/{REPO}/", asks()),
    "model key": ("x", KEY, asks("a/b", task="text-generation")),
    "model key of the class that mints the same": (
        "x",
        'nnsight.modeling.language.LanguageModel:{"repo_id": "a/b"}',
        asks("a/b"),
    ),
    "model key over several lines, with settings around it": (
        "x",
        'replicas: 2\nnnsight.modeling.transformers.TransformersModel: {\n  "repo_id": "a/b",\n'
        '  "trust_remote_code": true\n}\ngpus: 1',
        asks("a/b", replicas=2, gpus=1, trust_remote_code=True),
    ),
    "model key behind model:": (
        "x",
        f"model: {KEY}\nreplicas: 2",
        asks("a/b", task="text-generation", replicas=2),
    ),
    "model key in curly quotes": (
        "x",
        "nnsight.modeling.transformers.TransformersModel:{“repo_id”: “a/b”}",
        asks("a/b"),
    ),
    "model key inside a sentence": ("x", f"please run {KEY}, thanks", asks("a/b", task="text-generation")),
    "GPUs counted and named at once": ("gpt2", "gpus: 8xH100", asks("gpt2", gpus=8, accelerator="H100")),
    "and under the other key": (
        "gpt2",
        "accelerator: 2 x RTX 4090",
        asks("gpt2", gpus=2, accelerator="RTX 4090"),
    ),
    "and on a line of their own": (
        "gpt2",
        "for us\n - 4× A100-80GB",
        asks("gpt2", gpus=4, accelerator="A100-80GB"),
    ),
    "and in the title": ("a/b 8xH100", "replicas: 2", asks("a/b", gpus=8, accelerator="H100", replicas=2)),
    "and in the title, set off": ("a/b, (2 x H100)", "", asks("a/b", gpus=2, accelerator="H100")),
    "and again, the same": (
        "gpt2 2xH100",
        "gpus: 2\naccelerator: H100",
        asks("gpt2", gpus=2, accelerator="H100"),
    ),
    "a kind of GPU alone": ("gpt2", "Accelerator: NVIDIA H100", asks("gpt2", accelerator="NVIDIA H100")),
    "a line that counts something else": (
        "gpt2",
        "2x faster\n10x10\n3x room 12\n2x H100 please",
        asks("gpt2"),
    ),
    "a sentence about acceleration": ("gpt2", "accelerate: everything we have", asks("gpt2")),
    "the same thing said twice": ("x", f"{KEY}\nmodel: a/b\nmodel: a/b", asks("a/b", task="text-generation")),
    "the same dtype in two spellings": (
        "gpt2",
        "dtype: bf16\ndtype: bfloat16",
        asks("gpt2", dtype="bfloat16"),
    ),
    "free text": (
        "gpt2",
        "Note: call Bob\nhttps://example.org/x?model=y\nAgenda: gpus and replicas\n10:30 start\nTeam = us",
        asks("gpt2"),
    ),
    "another dotted name before a brace": ("gpt2", "see docs.nnsight.net: {the guide}", asks("gpt2")),
    "a sentence whose first word resembles a key": ("gpt2", "tasks: reading group at noon", asks("gpt2")),
    "type: is no dtype unless its value is one": ("gpt2", "type: text generation", asks("gpt2")),
    "a key in the middle of a line": ("gpt2", "we want replicas: many", asks("gpt2")),
    "a heading or a blank of a form": ("gpt2", "revision:\nPriority:\n - all of them", asks("gpt2")),
    "an address in angle brackets": ("gpt2", "asked for by <bob@example.org>\ngpus: 1", asks("gpt2", gpus=1)),
    "HTML: lines": ("gpt2", "replicas: 2<br>gpus: 1<br/>see you", asks("gpt2", replicas=2, gpus=1)),
    "HTML: a list with spaces and quotes": (
        "x",
        "<html-blob><ul><li>model:&nbsp;<b>a/b</b></li><li>dtype: &quot;half&quot;</li></ul></html-blob>",
        asks("a/b", dtype="float16"),
    ),
    "HTML: an automatic link": ("x", f'model: <a href="https://{REPO}">{REPO}</a><br>', asks()),
    "HTML: a model key": (
        "x",
        f"<p>{KEY.replace(chr(34), '&quot;')}</p>",
        asks("a/b", task="text-generation"),
    ),
}


@pytest.mark.parametrize(("title", "description", "request_"), UNDERSTOOD.values(), ids=UNDERSTOOD)
def test_understood(title: str, description: str, request_: ModelRequest) -> None:
    assert parse_event(title, description) == request_


@pytest.mark.parametrize(
    ("written", "dtype"),
    [
        (spelling, dtype)
        for dtype, spellings in {
            "float32": ["float32", "fp32", "f32", "float", "torch.float32", "torch.float", "FLOAT32"],
            "bfloat16": ["bfloat16", "bf16", "torch.bfloat16", "BF16"],
            "float16": ["float16", "fp16", "f16", "half", "torch.half", "torch.float16"],
            "int8": ["int8", "torch.int8", "INT8"],
        }.items()
        for spelling in spellings
    ],
)
def test_dtype_spellings(written: str, dtype: str) -> None:
    assert parse_event("gpt2", f"dtype: {written}") == asks("gpt2", dtype=dtype)


# title, description, what the reason names, and the example
NOT_UNDERSTOOD = {
    "nothing at all": ("", "", ["title is empty"], f"model: {REPO}"),
    "words, no model": ("Team lunch", "bring food", ["'Team lunch'"], f"model: {REPO}"),
    "words around a model": ("Run a/b please", "", ["'Run a/b please'"], "model: a/b"),
    "a model on a line of its own": ("Our run", "with\na/b\nfrom nine", ["'Our run'"], "model: a/b"),
    "GPUs, no model": ("8xH100", "", ["'8xH100'", "no alias"], f"model: {REPO}"),
    "a path": ("../../etc/passwd", "", ["'../../etc/passwd'"], f"model: {REPO}"),
    "three parts": ("x", "model: a/b/c", ["model", "'a/b/c'"], f"model: {REPO}"),
    "an absolute path": ("x", "model: /srv/weights", ["model", "'/srv/weights'"], f"model: {REPO}"),
    "model: left empty": ("gpt2", "model:", ["model is empty"], f"model: {REPO}"),
    "not a number": ("gpt2", "replicas: many", ["replicas", "'many'", "1 to 64"], "replicas: 2"),
    "none": ("gpt2", "gpus: 0", ["gpus", "'0'", "1 to 1024"], "gpus: 1"),
    "too many": ("gpt2", "replicas: 65", ["replicas", "'65'"], "replicas: 2"),
    "a number with thousands of digits": ("gpt2", "gpus: " + "9" * 5000, ["gpus"], "gpus: 1"),
    "other digits": ("gpt2", "replicas: ٣", ["replicas", "'٣'"], "replicas: 2"),
    "GPUs without their number": ("gpt2", "gpus: H100", ["gpus", "'H100'", "8xH100"], "gpus: 1"),
    "too many of a kind": ("gpt2", "gpus: 2000xH100", ["gpus is '2000xH100'", "1 to 1024"], "gpus: 1"),
    "too many of a kind, in the title": ("gpt2 0xH100", "", ["gpus is '0xH100'"], "gpus: 1"),
    "counted twice": ("gpt2 8xH100", "gpus: 4", ["gpus", "'8xH100'", "'4'"], "gpus: 8"),
    "two kinds": ("gpt2", "8xH100\naccelerator: A100", ["accelerator", "'A100'"], "accelerator: H100"),
    "a kind with other signs": (
        "gpt2",
        "accelerator: <H100>",
        ["accelerator", "dashes"],
        "accelerator: H100",
    ),
    "a kind without end": ("gpt2", "accelerator: " + "H" * 65, ["accelerator", "64"], "accelerator: H100"),
    "misspelt, a kind": ("gpt2", "acelerator: H100", ["did you mean `accelerator`"], "accelerator: H100"),
    "gpu of a kind": ("gpt2", "GPU: H100", ["'GPU'", "`accelerator`"], "accelerator: H100"),
    "gpu, counted": ("gpt2", "gpu: 8xH100", ["'gpu'", "`gpus`"], "gpus: 8xH100"),
    "priority in words": ("gpt2", "priority: high", ["priority", "'high'"], "priority: 10"),
    "a dtype that is not served": ("gpt2", "dtype: int3", ["dtype", "'int3'", "bfloat16"], "dtype: bfloat16"),
    "a revision with spaces": (
        "gpt2",
        "revision: the newest",
        ["revision", "'the newest'"],
        "revision: main",
    ),
    "misspelt, close": ("gpt2", "replica: 2", ["'replica'", "did you mean `replicas`"], "replicas: 2"),
    "misspelt, letters swapped": ("x", "modle: a/b", ["'modle'", "did you mean `model`"], "model: a/b"),
    "misspelt, one of many": ("gpt2", "gpu: 1", ["'gpu'", "did you mean `gpus`"], "gpus: 1"),
    "misspelt, dtype": ("gpt2", "Type: fp16", ["'Type'", "did you mean `dtype`"], "dtype: float16"),
    "private in other words": ("gpt2", "private: my own", ["private", "'my own'"], "private: yes"),
    "misspelt, private": ("gpt2", "privat: yes", ["'privat'", "did you mean `private`"], "private: true"),
    "another word for private": ("gpt2", "privacy: yes", ["'privacy'", "`private`"], "private: true"),
    "another word for it": ("gpt2", "precision: bf16", ["'precision'", "`dtype`"], "dtype: bfloat16"),
    "twice, differently": ("gpt2", "replicas: 2\nreplicas: 3", ["replicas", "'2'", "'3'"], "replicas: 2"),
    "two models": ("x", "model: a/b\nmodel: c/d", ["model", "'a/b'", "'c/d'"], "model: a/b"),
    "line against model key": ("x", f"{KEY}\nmodel: c/d", ["model", "'a/b'", "'c/d'"], "model: a/b"),
    "another class": (
        "x",
        'nnsight.modeling.vllm.VLLM:{"repo_id": "a/b"}',
        ["'nnsight.modeling.vllm.VLLM'", MODEL_CLASS],
        MODEL_CLASS,
    ),
    "a key that is not JSON": ("x", MODEL_CLASS + ':{"repo_id": a/b}', ["not JSON"], MODEL_CLASS),
    "a key that breaks off": ("x", MODEL_CLASS + ':{"repo_id": "a/b"', ["not JSON"], MODEL_CLASS),
    "a key nested a thousand deep": ("x", MODEL_CLASS + ":{" + '"a":{' * 3000, ["not JSON"], MODEL_CLASS),
    "a key without repo_id": (
        "x",
        MODEL_CLASS + ':{"task": "text-generation"}',
        ['no "repo_id"'],
        MODEL_CLASS,
    ),
    "a key with more in it": ("x", MODEL_CLASS + ':{"repo_id": "a/b", "x": 1}', ["'x'"], MODEL_CLASS),
    "a key with a wrong type": ("x", MODEL_CLASS + ':{"repo_id": ["a"]}', ["repo_id", "a list"], MODEL_CLASS),
    "a key with a wrong flag": (
        "x",
        MODEL_CLASS + ':{"repo_id": "a/b", "trust_remote_code": 1}',
        ["trust_remote_code", "'1'"],
        MODEL_CLASS,
    ),
    "a description without end": (
        "gpt2",
        "x" * (MAX_DESCRIPTION_CHARACTERS + 1),
        ["20001", "20000"],
        "model:",
    ),
    "a title without end": ("x" * 1001, "model: a/b", ["title", "1001"], "model:"),
    "half a surrogate pair": ("gpt2", "dtype: \ud800", ["dtype", "'?'"], "dtype: bfloat16"),
}


@pytest.mark.parametrize(
    ("title", "description", "named", "works"), NOT_UNDERSTOOD.values(), ids=NOT_UNDERSTOOD
)
def test_problems_name_field_and_value(title: str, description: str, named: list[str], works: str) -> None:
    problem = parse_event(title, description)
    assert isinstance(problem, Problem)
    for words in named:
        assert words in problem.reason
    assert problem.example.startswith(works)
    assert isinstance(parse_event("SmolLM2-135M-Instruct", problem.example), ModelRequest)


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ("a<br>b<BR/>c", "a\nb\nc"),
        ("<p>a</p><div class='x'>b</div>", "\na\n\nb\n"),
        ("a&nbsp;b &amp; c &#39;d&#x27;", "a b & c 'd'"),
        ("&lt;br&gt; is a line break", "<br> is a line break"),
        ("https://x.org/?a=1&copy=2", "https://x.org/?a=1&copy=2"),
        ("bob <bob@example.org>, <b@c.org>, a < b > c", "bob <bob@example.org>, <b@c.org>, a < b > c"),
        ("zero\u200bwidth", "zerowidth"),
    ],
)
def test_plain_text(description: str, words: str) -> None:
    assert plain_text(description) == words


# Texts made of the pieces that matter find more than letters at random; surrogates are strings too.
PIECES = st.sampled_from(
    [
        *FIELDS,
        *"ab/.-_:=\n\t{}[]<>&;\"'`“”1209 \\\0\u2028\ud800\U0001f600",
        *(
            "model: ",
            "replica",
            "8xH100",
            "H100",
            "nnsight.",
            MODEL_CLASS,
            KEY,
            ":{",
            "null",
            "<br>",
            "&nbsp;",
        ),
        "https://huggingface.co/",
    ]
)
TEXTS = st.lists(PIECES | st.characters(exclude_categories=()), max_size=30).map("".join)


@given(TEXTS, TEXTS)
@example("\ud800", MODEL_CLASS + ':{"repo_id": "\ud800"}')
@example("", MODEL_CLASS + ':{"repo_id": 1e999}')
@example("", MODEL_CLASS + ':{"repo_id": ' + "1" * 5000 + "}")
def test_any_text_gives_a_request_or_a_problem_that_helps(title: str, description: str) -> None:
    outcome = parse_event(title, description)
    if isinstance(outcome, Problem):
        assert isinstance(parse_event("gpt2", outcome.example), ModelRequest)
        assert len(outcome.reason) < 500
        assert outcome.reason.isprintable()
    else:
        assert parse_event(title, render_request(outcome)) == outcome


NAMES = st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_.]{0,20}[A-Za-z0-9_]\Z").filter(
    lambda name: ".." not in name and not name.endswith(".git")
)
REQUESTS = st.builds(
    ModelRequest,
    model=NAMES | st.builds("{}/{}".format, NAMES, NAMES),
    revision=st.none() | st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_/-]{0,40}\Z"),
    task=st.none() | st.from_regex(r"\A[a-z][a-z0-9-]{0,30}\Z"),
    trust_remote_code=st.booleans(),
    private=st.booleans(),
    replicas=st.integers(1, MAX_REPLICAS),
    dtype=st.none() | st.sampled_from(["float32", "bfloat16", "float16"]),
    gpus=st.none() | st.integers(1, MAX_GPUS),
    accelerator=st.none() | st.from_regex(r"\A[A-Za-z0-9](?:[ -]?[A-Za-z0-9]){0,30}\Z"),
    priority=st.integers(-MAX_PRIORITY, MAX_PRIORITY),
)


@given(REQUESTS, TEXTS.filter(lambda title: len(title) <= 100))
def test_what_is_rendered_is_understood_under_any_title(request_: ModelRequest, title: str) -> None:
    assert parse_event(title, render_request(request_)) == request_


def test_render_writes_only_what_is_said() -> None:
    assert render_request(asks("gpt2")) == "model: gpt2"
    assert render_request(asks("gpt2", replicas=2, trust_remote_code=True)) == (
        "model: gpt2\nreplicas: 2\ntrust_remote_code: true"
    )


@pytest.mark.parametrize(
    "request_", [asks("two words"), asks("a/b", revision="x y"), asks("a/b", task="No Task")]
)
def test_render_refuses_what_no_one_could_write(request_: ModelRequest) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        render_request(request_)


SLOW_FOR_CARELESS_PATTERNS = {
    "class without end": "nnsight" + ".a" * 9_990,
    "class after class": "nnsight.a " * 2_000,
    "spaces after a class": "nnsight.a" + " " * 19_990,
    "open tags": "<a " * 6_600,
    "an open tag": "<a" + " " * 19_990,
    "ampersands": "&a" * 10_000,
    "bullets": "- " * 10_000,
    "empty lines": "\n" * 20_000,
    "near keys": "modla: x y\n" * 1_800,
    "a letter": "m" * 20_000,
    "keys without end": (MODEL_CLASS + ":{") * 400,
}


@pytest.mark.parametrize("description", SLOW_FOR_CARELESS_PATTERNS.values(), ids=SLOW_FOR_CARELESS_PATTERNS)
def test_the_longest_description_is_read_at_once(description: str) -> None:
    begun = time.monotonic()
    parse_event("gpt2", description[:MAX_DESCRIPTION_CHARACTERS])
    # Quadratic over 20,000 characters would take minutes; linear takes milliseconds.
    assert time.monotonic() - begun < 2
