import pytest

from delegation_core.records.paths import first_id, mask_ids

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.mark.parametrize(
    ("path", "before", "long"),
    [
        pytest.param("/customers/42", "/customers", False, id="number"),
        pytest.param("/v1/orders/7/lines/3", "/v1/orders", False, id="the-first-of-two"),
        pytest.param(f"/files/{UUID}", "/files", True, id="uuid"),
        pytest.param("/files/9f86d081884c7d659a2feaa0", "/files", True, id="hexadecimal"),
        pytest.param("/files/01HQ3K5W7YB8Z2V4N6M0P9R1TX/raw", "/files", True, id="ulid"),
        pytest.param("/charges/ch_3MmlLrLkdIwHu7ix", "/charges", True, id="with-a-kind"),
        pytest.param("/reset/aB3-xyzXYZ_0123456789ab", "/reset", True, id="base64url"),
        pytest.param("/42", "/", False, id="at-the-root"),
    ],
)
def test_an_id_is_found_with_the_path_before_it(path: str, before: str, long: bool) -> None:
    assert first_id(path) == (before, long)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/customers",
        "/v1/search",
        "/customers/",
        "/annual-report-2026-of-the-board",
        "/internationalization",
        "/a1",
    ],
)
def test_a_word_is_no_id(path: str) -> None:
    assert first_id(path) is None
    assert mask_ids(path) == path


def test_paths_of_one_kind_have_one_text() -> None:
    assert (
        mask_ids(f"/customers/42/files/{UUID}/raw")
        == "/customers/*/files/*/raw"
        == mask_ids("/customers/7/files/9f86d081884c7d65/raw")
    )
