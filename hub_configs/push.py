"""Send an export to the Hub: its card written anew, every file scanned first, sent resumably, and compared afterwards.

What leaves lies in a temporary folder of links, so that the export itself stays as it is. The upload is
``huggingface_hub.upload_folder``, which skips what an interrupted one has sent. Where the folder runs code of its own,
the card comes in a second commit and pins the first one in its examples.
"""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.hf_api import RepoFile

from proxybyte.artefacts import ADAPTER_CONFIG
from proxybyte.checksums import SUMS, file_digest, files_in, folder_record, read_record, verify_folder
from proxybyte.errors import ProxyByteError
from proxybyte.folders import write_text
from proxybyte.hub_configs.card_facts import EXPORT_REPORT, read_facts
from proxybyte.hub_configs.card_results import write_benchmarks
from proxybyte.hub_configs.model_card import CARD_FILE, Card, Told, license_in, write_card
from proxybyte.privacy import scan
from proxybyte.provenance import read_provenance

log = logging.getLogger(__name__)

_UNSAFE = frozenset({".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"})
"""Endings of files that may run code when they are loaded, or that a pickle may hide in."""
_STALE = ["*.safetensors", "*.safetensors.index.json", "*.gguf", "*.py", "compressor/*", "custom_generate/*"]
"""What is removed of an earlier push where this one has no such file; pictures and the like of others stay."""
_SHOWN = 10


@dataclass(frozen=True)
class PushOptions:
    """How to push.

    Attributes:
        repo: ``OWNER/NAME``.
        told: what a person says for the card.
        private: whether a new repository is private; of one that is there nothing is changed.
        revision: branch; the default one if absent.
        create_pr: open a pull request.
        message: of the commit.
        allowed: words that the scan may find.
    """

    repo: str
    told: Told = field(default_factory=Told)
    private: bool = True
    revision: str | None = None
    create_pr: bool = False
    message: str = "Upload with ProxyByte"
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ready:
    """A folder that may leave.

    Attributes:
        folder: of links, and the card.
        card: as it was written; ``None`` where the person's own is kept.
        sizes: bytes of each file, by path.
    """

    folder: Path
    card: Card | None
    sizes: dict[str, int]


@dataclass(frozen=True)
class Pushed:
    """What came of a push.

    Attributes:
        url: of the repository, or of the pull request.
        commit: the last one.
        code_commit: the one that the examples pin; ``None`` where no remote code runs.
    """

    url: str
    commit: str
    code_commit: str | None


@contextmanager
def made_ready(export: Path, options: PushOptions) -> Iterator[Ready]:
    """The folder that would leave, for the time of the block.

    Args:
        export: what 'proxybyte export' wrote.
        options: how.

    Raises:
        ProxyByteError: if it is no export, is damaged, holds something private, or its licence is not known.
    """
    verify_folder(export, (".safetensors", ".gguf"))
    facts, made = read_facts(export), read_provenance(export)
    told = replace(options.told, license=options.told.license or _known_license(export))
    if told.license is None:
        raise ProxyByteError(f"{export} does not say the licence of its weights: give --license, such as apache-2.0")
    card = Card(options.repo, facts, made, told)
    mine = _is_own_card(export)
    with tempfile.TemporaryDirectory(prefix="proxybyte-push-") as name:
        folder = Path(name)
        for path, source in _files(export).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).symlink_to(source.resolve())
        if not mine:
            (folder / CARD_FILE).unlink(missing_ok=True)
            write_card(card, folder)
        else:
            log.info("%s was changed by hand and is sent as it is", export / CARD_FILE)
        write_benchmarks(card.results, folder)
        record = folder_record(folder, "export", unsummed=(CARD_FILE,))
        write_text(folder / SUMS, record.to_text())
        _refuse_private(folder, export, options.allowed)
        sizes = {path: (folder / path).stat().st_size for path in (*files_in(folder), SUMS)}
        yield Ready(folder, None if mine else card, dict(sorted(sizes.items())))


def push(ready: Ready, options: PushOptions) -> Pushed:
    """Send it, and compare what came to lie there.

    Raises:
        ProxyByteError: if the Hub refuses, cannot be reached, or holds other bytes afterwards.
    """
    api = HfApi()
    pins = ready.card is not None and "revision=" in str(ready.card)
    with _in_one_sentence(options.repo):
        url = api.create_repo(options.repo, private=options.private, exist_ok=True)
        if options.private and not api.model_info(options.repo).private:
            log.warning("%s was there already and is public: what is sent is seen by everybody", options.repo)
        if options.revision is not None:
            api.create_branch(options.repo, branch=options.revision, exist_ok=True)
        first = api.upload_folder(
            repo_id=options.repo,
            folder_path=ready.folder,
            commit_message=options.message,
            revision=options.revision,
            create_pr=options.create_pr,
            ignore_patterns=[CARD_FILE] if pins else None,
            delete_patterns=_STALE,
        )
        last = _send_card(api, ready, options, first) if pins else first
        _compare(api, ready, options.repo, last.oid)
    return Pushed(first.pr_url or str(url), last.oid, first.oid if pins else None)


def _send_card(api: HfApi, ready: Ready, options: PushOptions, first: CommitInfo) -> CommitInfo:
    """The card, with the commit that holds the code."""
    assert ready.card is not None
    write_card(replace(ready.card, revision=first.oid), ready.folder)
    return api.upload_file(
        repo_id=options.repo,
        path_or_fileobj=ready.folder / CARD_FILE,
        path_in_repo=CARD_FILE,
        commit_message=f"{options.message} (card)",
        revision=first.pr_revision or options.revision,
    )


def _compare(api: HfApi, ready: Ready, repo: str, commit: str) -> None:
    """Refuse to call done what is not there as it was sent."""
    there: dict[str, Any] = {
        each.path: each
        for each in api.list_repo_tree(repo, recursive=True, revision=commit)
        if isinstance(each, RepoFile)
    }
    for name, path in files_in(ready.folder).items():
        found = there.get(name)
        same = found is not None and found.size == path.stat().st_size
        if found is not None and found.lfs is not None:
            same = same and found.lfs.sha256 == file_digest(path)
        if not same:
            raise ProxyByteError(f"{name} lies otherwise in {repo} than it was sent: run the same command again")


def _files(export: Path) -> dict[str, Path]:
    """What of an export leaves, by path in it.

    Raises:
        ProxyByteError: naming a file that is not safe to load, or that is a link out of the folder.
    """
    found = files_in(export)
    for name, path in found.items():
        if path.suffix in _UNSAFE:
            raise ProxyByteError(f"{export / name} may hold a pickle: only safetensors are pushed, move it away")
        if path.is_symlink() and not path.resolve().is_relative_to(export.resolve()):
            raise ProxyByteError(f"{export / name} is a link to another folder: put the file itself there")
        if path.is_dir():
            raise ProxyByteError(f"{export / name} is an empty folder: remove it")
    return found


def _known_license(export: Path) -> str | None:
    """As the card says, else that of the base."""
    card = export / CARD_FILE
    named = license_in(card.read_text(encoding="utf-8")) if card.is_file() else None
    base = read_provenance(export).byteified or {}
    return named or base.get("license")


def _is_own_card(export: Path) -> bool:
    """Whether a person wrote or changed the card."""
    record, card = read_record(export), export / CARD_FILE
    return card.is_file() and (record is None or record.sums.get(CARD_FILE) != file_digest(card))


def _refuse_private(folder: Path, export: Path, allowed: tuple[str, ...]) -> None:
    places = {str(place) for place in (export.absolute(), export.resolve(), Path.cwd(), folder) if len(place.parts) > 2}
    found = scan(folder, sorted(places), allowed)
    if not found:
        return
    more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise ProxyByteError(
        f"{export} is not pushed: {'; '.join(map(str, found[:_SHOWN]))}{more}: take it out of the file, or pass "
        "--allow WORD for what is no secret"
    )


@contextmanager
def _in_one_sentence(repo: str) -> Iterator[None]:
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        fix = {
            401: "log in with 'hf auth login', or set HF_TOKEN",
            403: "take a token that may write there",
            404: "look at the name and at your token's rights",
        }.get(status or 0, "the same command goes on with what has not been sent")
        reason = next(iter((error.server_message or str(error)).splitlines()), "no reason given")
        raise ProxyByteError(f"{repo} was not pushed: {reason} ({fix})") from error
    except HFValidationError as error:
        raise ProxyByteError(f"{repo} is no name of a repository: give OWNER/NAME ({error})") from error
    except Exception as error:
        from_client = type(error).__module__.startswith("httpx")  # or its successor, by the client's version
        if isinstance(error, ProxyByteError) or not (from_client or isinstance(error, OSError | RuntimeError)):
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ProxyByteError(
            f"{repo} was not pushed: {reason} (the same command goes on with what has not been sent)"
        ) from error


def is_export(folder: Path) -> bool:
    """Whether ``folder`` can be pushed as it is."""
    return (folder / EXPORT_REPORT).is_file()


def check_pushable(source: str) -> None:
    """Refuse an adapter, which is no model.

    Raises:
        ProxyByteError: naming the command that makes one of it.
    """
    if (Path(source) / ADAPTER_CONFIG).is_file():
        raise ProxyByteError(f"{source} is an adapter: make a model of it with 'proxybyte adapter merge' first")
