"""Tokenizers: what the table says, residuals that shrink, collisions removed, equal IDs again, the cache, errors."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from genrec_bench.contracts import NUM_SPECIAL_TOKENS, PAD, Interactions, SemanticIds
from genrec_bench.core import registry
from genrec_bench.core.errors import UserError
from genrec_bench.core.texts import words_of
from genrec_bench.tokenizers import base
from genrec_bench.tokenizers.base import describe, fit_cached, positions_in_groups
from genrec_bench.tokenizers.rq_kmeans import RQKMeans

WORDS = [f"word{n}" for n in range(40)]
GIVEN = np.array([[0, 1, 2], [0, 1, 2], [0, 3, 0], [2, 0, 1]])


def items(num_items: int = 200, seed: int = 0, blank: int = 5) -> Interactions:
    """Texts of five words out of forty; the first `blank` items have none, the next two have equal texts."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, size=5, p=np.arange(40, 0, -1) / 820)) for _ in range(num_items)]
    texts[:blank] = [""] * blank
    texts[blank] = texts[blank + 1]
    return with_items(num_items, item_texts=tuple(texts))


def with_items(num_items: int, **fields) -> Interactions:
    ids = tuple(str(n) for n in range(num_items))
    return Interactions("toy", ("0",), ids, (np.arange(3),), **fields)


def fitted(spec: dict, interactions: Interactions, cache: Path | None) -> SemanticIds:
    return fit_cached(registry.tokenizers.build(spec), interactions, cache)


def test_describe_by_hand() -> None:
    table = describe(GIVEN, (3, 4, 4))
    assert table == {"levels": 3, "codebook_sizes": [3, 4, 4], "items": 4, "distinct_semantic_ids": 3,
                     "colliding_items": 2, "largest_group": 2, "utilisation": [2 / 3, 3 / 4, 3 / 4],
                     "prefixes": [2, 3, 3]}
    json.dumps(table)


def test_describe_of_shorter_ids() -> None:
    codes = np.array([[0, 1, -1], [0, 1, 0], [1, -1, -1]])
    table = describe(codes, (2, 2, 1))
    assert table["prefixes"] == [2, 1, 1] and table["distinct_semantic_ids"] == 3
    assert table["utilisation"] == [1.0, 0.5, 1.0]


def test_positions_in_groups() -> None:
    codes = np.array([[1, 1], [0, 0], [1, 1], [0, 1], [1, 1], [0, 0]])
    assert positions_in_groups(codes).tolist() == [0, 0, 1, 0, 2, 1]


def test_given_keeps_the_codes() -> None:
    ids = fitted({"name": "given"}, with_items(4, given_codes=GIVEN), None)
    assert ids.codebook_sizes == (3, 4, 3)
    offsets = np.array([0, 3, 7]) + NUM_SPECIAL_TOKENS
    np.testing.assert_array_equal(ids.tokens - offsets, GIVEN)
    assert ids.num_distinct == ids.table["distinct_semantic_ids"] == 3
    assert "reconstruction_error" not in ids.table
    wide = fitted({"name": "given", "codebook_size": 256}, with_items(4, given_codes=GIVEN), None)
    assert wide.codebook_sizes == (256, 256, 256)


def test_given_pads_shorter_ids() -> None:
    ids = fitted({"name": "given"}, with_items(2, given_codes=np.array([[1, 0], [0, -1]])), None)
    assert ids.tokens.tolist() == [[3, 4], [2, PAD]]


@pytest.mark.parametrize(("codes", "spec", "text"), [
    (None, {}, "'toy' comes without semantic IDs.*rq_kmeans"),
    (GIVEN[:3], {}, "one row for each of 4 items"),
    (GIVEN.astype(float), {}, "integers"),
    (np.array([[0, 1], [0, 0], [-1, 0], [1, 1]]), {}, "item '2' has the codes"),
    (np.array([[0, 1], [0, 0], [1, -2], [1, 1]]), {}, "item '2' has the codes"),
    (np.array([[0, -1, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0]]), {}, "item '0' has the codes"),
    (GIVEN, {"codebook_size": 3}, "item '2' has code 3"),
    (np.array([[0, 1], [2, -1], [1, 1], [2, 0]]), {}, "of item '1' is the beginning of that of item '3'. Give"),
])
def test_given_refuses(codes, spec, text: str) -> None:
    with pytest.raises(UserError, match=text):
        fitted({"name": "given", **spec}, with_items(4, given_codes=codes), None)


def test_reconstruction_error_falls_at_every_level() -> None:
    table = RQKMeans(levels=4, codebook_size=8).fit(items()).table
    errors = table["reconstruction_error"]
    assert len(errors) == 4 and 1 > errors[0] and errors[-1] > 0
    assert all(a > b for a, b in zip(errors, errors[1:], strict=False))


def test_deduplication_removes_collisions_and_nothing_else() -> None:
    plain = RQKMeans(levels=2, codebook_size=6, deduplicate=False).fit(items())
    unique = RQKMeans(levels=2, codebook_size=6).fit(items())
    np.testing.assert_array_equal(plain.tokens, unique.tokens[:, :2])
    assert plain.table["colliding_items"] > 0
    assert unique.tokens.shape[1] == 3 and unique.num_distinct == 200
    assert unique.table["colliding_items"] == 0 and unique.table["largest_group"] == 1
    assert unique.table["collisions_before_deduplication"] == {
        k: plain.table[k] for k in ("distinct_semantic_ids", "colliding_items", "largest_group")}
    assert unique.codebook_sizes[2] == plain.table["largest_group"]
    assert unique.table["prefixes"][:2] == plain.table["prefixes"]


def test_equal_or_absent_texts_share_their_codes() -> None:
    ids = RQKMeans(levels=3, codebook_size=16, deduplicate=False).fit(items())
    assert len(np.unique(ids.tokens[:5], axis=0)) == 1
    np.testing.assert_array_equal(ids.tokens[5], ids.tokens[6])
    assert ids.table["items_without_text"] == 5


def test_equal_ids_again_and_under_any_thread_count() -> None:
    tokenizer = RQKMeans(levels=3, codebook_size=32, dimensions=20)
    data = items(600)
    fitted = []
    for threads in (1, 2, 2):
        with threadpool_limits(threads):
            fitted.append(tokenizer.fit(data))
    assert len({ids.fingerprint for ids in fitted}) == 1
    assert fitted[0].table == fitted[1].table
    assert RQKMeans(levels=3, codebook_size=32, dimensions=20, seed=1).fit(data).fingerprint != fitted[0].fingerprint


def test_the_fit_runs_in_one_thread_and_gives_the_threads_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal IDs above may be luck: on few items more threads seldom move a code."""
    seen: list[int] = []
    quantise = RQKMeans._quantise

    def spy(self, vectors):
        seen.extend(pool["num_threads"] for pool in threadpool_info())
        return quantise(self, vectors)

    monkeypatch.setattr(RQKMeans, "_quantise", spy)
    with threadpool_limits(2):
        before = sorted(pool["num_threads"] for pool in threadpool_info())
        RQKMeans(codebook_size=4).fit(items(30))
        assert set(seen) == {1}
        assert max(pool["num_threads"] for pool in threadpool_info()) == max(before)


def test_fewer_items_than_codes_shrinks_the_codebook() -> None:
    """7 items, two of them equal: one code for each distinct text, then nothing is left."""
    ids = RQKMeans(levels=2, codebook_size=64).fit(items(7, blank=0))
    assert ids.codebook_sizes == (6, 1, 2)
    assert ids.num_distinct == 7
    assert ids.table["reconstruction_error"][0] == pytest.approx(0, abs=1e-9)


def test_the_number_of_levels_does_not_depend_on_collisions() -> None:
    ids = RQKMeans(levels=1, codebook_size=64).fit(with_items(3, item_texts=("a b", "c d", "e f")))
    assert ids.codebook_sizes == (3, 1) and ids.num_distinct == 3


@pytest.mark.parametrize("texts", [None, ("", " ", "")])
def test_no_texts_is_an_error_with_a_remedy(texts) -> None:
    with pytest.raises(UserError, match="'toy' has no item texts.*'given'"):
        RQKMeans().fit(with_items(3, item_texts=texts))


def test_words_of_scripts_without_spaces_are_pairs_of_characters() -> None:
    """Chinese, Japanese, Thai with its marks; other scripts as one word between what is no letter, as ever."""
    assert words_of("红色棉衬衫") == ["红色", "色棉", "棉衬", "衬衫"] and words_of("茶, 𠮷野") == ["茶", "𠮷野"]
    mixed = ["東京", "京タ", "タワ", "ワー", "iphone15", "用", "ケー", "ース"]
    assert words_of("東京タワー・iphone15用 ケース") == mixed
    assert words_of("ที่ดี") == ["ที", "ี่", "่ด", "ดี"]
    plain = "don't über_size x 42 Ёлка 한국어 שלום नमस्ते ½ café\u0301 a-b"
    assert words_of(plain) == re.findall(r"(?u)\b\w+\b", plain)


def test_titles_without_spaces_are_clustered_by_what_they_name() -> None:
    """The first code tells the product's kind as well as it does for the same titles in English."""
    kinds = {"衬衫": "shirt", "牛仔裤": "jeans", "咖啡机": "coffee maker", "洗发水": "shampoo", "铅笔": "pencil",
             "电动牙刷": "electric toothbrush"}
    colours = {"红色": "red", "蓝色": "blue", "黑色": "black", "白色": "white", "绿色": "green"}
    brands = [("张李王赵陈杨黄周吴徐"[n % 10] + "福德隆盛丰"[n // 10], f"brand{n}") for n in range(40)]
    draw = np.random.default_rng(0)
    rows = [(brands[draw.integers(40)], list(colours.items())[draw.integers(5)], list(kinds.items())[draw.integers(6)])
            for _ in range(240)]

    def told(titles: list[str]) -> float:
        ids = RQKMeans(levels=1, codebook_size=6).fit(with_items(240, item_texts=tuple(titles)))
        first = ids.tokens[:, 0]
        groups = [[rows[n][2] for n in np.flatnonzero(first == code)] for code in np.unique(first)]
        return sum(max(map(group.count, group)) for group in groups) / 240

    english = told([" ".join(part[1] for part in row) for row in rows])
    assert told(["".join(part[0] for part in row) for row in rows]) > 0.8 * english > 0.6


def test_texts_that_share_hardly_a_word_are_noted(capsys: pytest.CaptureFixture) -> None:
    texts = [f"one{n} two{n} three{n} {'even' if n % 2 else 'odd'}" for n in range(20)]
    for given, told in ((texts, True), ([" ".join(text.split()[::3]) for text in texts], True),
                        ([text.split()[3] for text in texts], False)):
        ids = RQKMeans(levels=1, codebook_size=2).fit(with_items(20, item_texts=tuple(given)))
        note = f"{ids.table['words_in_one_text']} of {ids.table['words']} words occur in one text only"
        assert (note in capsys.readouterr().err) == told


def test_k_means_on_a_sample_gives_every_item_a_code() -> None:
    """At the first level the sample has the codes that it has alone; the other items have the nearest centre's."""
    vectors = np.random.default_rng(0).normal(size=(400, 6))
    tokenizer = RQKMeans(levels=2, codebook_size=8, fit_items=150)
    sample = tokenizer._sample(400)
    codes, sizes, errors = tokenizer._quantise(vectors)
    alone = replace(tokenizer, levels=1, fit_items=0)._quantise(vectors[sample])[0]
    np.testing.assert_array_equal(codes[sample, 0], alone[:, 0])
    centres = np.stack([vectors[sample][alone[:, 0] == code].mean(axis=0) for code in range(8)])
    nearest = ((vectors[:, None] - centres)**2).sum(axis=2).argmin(axis=1)
    assert len(set(sample.tolist())) == 150 and (codes[:, 0] == nearest).mean() > 0.98 and 1 > errors[0] > errors[1]
    whole, more = (replace(tokenizer, fit_items=n)._quantise(vectors)[0] for n in (0, 500))
    np.testing.assert_array_equal(whole, more)
    assert (whole != codes).any() and replace(tokenizer, seed=1)._sample(400).tolist() != sample.tolist()
    with pytest.raises(UserError, match="fit_items = 7 must be 0 .* or at least codebook_size = 8"):
        replace(tokenizer, fit_items=7).fit(items())


@pytest.mark.parametrize(("settings", "size"), [({"levels": 2, "codebook_size": 4}, 64), ({"codebook_size": 64}, 0)])
def test_codebooks_too_small_for_the_items_are_noted(settings: dict, size: int, capsys: pytest.CaptureFixture) -> None:
    """200 items, 16 IDs for each: 64 * 64 = 4096 is the first square of a power of two not below 3200."""
    RQKMeans(**settings).fit(items())
    told = capsys.readouterr().err
    assert (f"2 levels of 4 codes make at most 16 IDs. codebook_size = {size} makes at least 16" in told) == (size > 0)
    assert bool(told) == (size > 0)


def test_texts_without_words() -> None:
    with pytest.raises(UserError, match="no words"):
        RQKMeans().fit(with_items(3, item_texts=("!", "?", ".")))


def test_sentence_transformer_needs_a_model_and_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="rq_kmeans.model"):
        RQKMeans(features="sentence_transformer").fit(items(10))
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", None)
    with pytest.raises(UserError, match=r"genrec-bench\[text\]"):
        RQKMeans(features="sentence_transformer", model="any").fit(items(10))


def test_sentence_transformer_vectors_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Encoder:
        def __init__(self, model: str, device: str, trust_remote_code: bool) -> None:
            assert not trust_remote_code

        def encode(self, texts: list[str], **options) -> np.ndarray:
            return np.array([[len(t), 1.0, t.count("1")] for t in texts], dtype=np.float32)

    module = type("Module", (), {"SentenceTransformer": Encoder})
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", module)
    ids = RQKMeans(features="sentence_transformer", model="any", codebook_size=8).fit(items(60))
    assert ids.table["feature_dimensions"] == 3 and ids.num_distinct == 60


@pytest.mark.parametrize("name", registry.tokenizers.names())
def test_contract_of_every_tokenizer(name: str) -> None:
    instance = registry.tokenizers.build({"name": name})
    assert registry.tokenizers.build(registry.resolved(instance)) == instance
    assert isinstance(instance.version, int) and isinstance(instance.depends_on(), str)
    data = items(12)
    ids = instance.fit(with_items(12, item_texts=data.item_texts, given_codes=np.arange(24).reshape(12, 2)))
    assert ids.tokens.shape == (12, len(ids.codebook_sizes)) and ids.tokens.dtype == np.int64
    assert ids.tokens.max() < ids.vocab_size
    assert {"levels", "codebook_sizes", "items", "distinct_semantic_ids", "colliding_items", "largest_group",
            "utilisation", "prefixes"} <= set(ids.table)
    assert json.loads(json.dumps(ids.table)) == ids.table


def test_cache_returns_the_same_without_fitting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, data = {"name": "rq_kmeans", "codebook_size": 8}, items(40)
    first = fitted(spec, data, tmp_path / "new")
    files = list((tmp_path / "new").iterdir())
    assert [f.suffix for f in files] == [".npz"]
    with np.load(files[0]) as file:
        assert file["table"].dtype == np.uint8

    def refuse(self, interactions):
        raise AssertionError("fitted again")

    monkeypatch.setattr(RQKMeans, "fit", refuse)
    again = fitted({"name": "rq_kmeans", "codebook_size": 8, "levels": 3}, data, tmp_path / "new")
    assert again.fingerprint == first.fingerprint and again.table == first.table
    assert again.codebook_sizes == first.codebook_sizes and again.tokens.dtype == np.int64
    for other_spec, other in (({**spec, "seed": 1}, data), (spec, items(40, seed=1)), (spec, items(41))):
        with pytest.raises(AssertionError, match="fitted again"):
            fitted(other_spec, other, tmp_path / "new")


def test_cache_key_follows_codes_version_and_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def count() -> int:
        fitted({"name": "given"}, with_items(4, given_codes=GIVEN), tmp_path)
        return len(list(tmp_path.iterdir()))

    assert count() == count() == 1
    fitted({"name": "given"}, with_items(4, given_codes=GIVEN + 1), tmp_path)
    assert count() == 2
    monkeypatch.setattr(base.Tokenizer, "version", 99)
    assert count() == 3
    monkeypatch.setattr(base.Tokenizer, "depends_on", lambda self: "numpy==0")
    assert count() == 4


@pytest.mark.parametrize("damage", [b"", b"not a zip file", None])
def test_a_damaged_cache_file_is_replaced(tmp_path: Path, damage: bytes | None) -> None:
    spec, data = {"name": "rq_kmeans", "codebook_size": 8}, items(40)
    first = fitted(spec, data, tmp_path)
    file = next(tmp_path.iterdir())
    whole = file.read_bytes()
    file.write_bytes(whole[:len(whole) // 2] if damage is None else damage)
    assert fitted(spec, data, tmp_path).fingerprint == first.fingerprint
    assert file.read_bytes() == whole


def test_a_local_encoder_that_changes_is_fitted_again(tmp_path: Path) -> None:
    tokenizer = RQKMeans(features="sentence_transformer", model=str(tmp_path))
    before = tokenizer.depends_on()
    (tmp_path / "config.json").write_text("{}")
    assert tokenizer.depends_on() != before


def test_wrong_settings_name_the_nearest() -> None:
    with pytest.raises(UserError, match="codebook_size"):
        fitted({"name": "rq_kmeans", "codebok_size": 8}, items(40), None)
    with pytest.raises(UserError, match="tfidf_svd"):
        fitted({"name": "rq_kmeans", "features": "tfidf"}, items(40), None)
