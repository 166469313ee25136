"""Reading the environment: every problem at once, each with a remedy, and never a secret in any text."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from deployments.environment import IGNORED, client_environment, ledger_of, read_environment
from deployments.homes import claim_home, problem_with_home
from deployments.signing import LocalKey, RemoteSigner, signer_block
from proposer.errors import InvalidSettings
from proposer.settings import ProposerSettings
from tests.deployments.helpers import ROOT, plain_environment

KEY = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
CHECKSUMMED = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
GOOD = {
    "L1_RPC": "https://l1.example.com/v2/l1-api-key-1234",
    "L2_NODE_RPC": "http://node.example.com:9545",
    "L2OO_ADDRESS": CHECKSUMMED,
    "PRIVATE_KEY": f"0x{KEY}",
}
REQUIRED = ("L1_RPC", "L2_NODE_RPC", "L2OO_ADDRESS", "PRIVATE_KEY")
SECRETS = (KEY, "l1-api-key-1234", "db-pass-word", "prefect-pass-word", "signer-pass-word")
REMOTE: dict[str, str | None] = {
    "SIGNER_URL": "https://me:signer-pass-word@signer.example.com:9000",
    "SIGNER_ADDRESS": CHECKSUMMED,
}


def problems(values: dict[str, str | None]) -> tuple[str, ...]:
    """Return what is wrong with the good environment after these changes; None takes a name away."""
    changed = {name: value for name, value in {**GOOD, **values}.items() if value is not None}
    with pytest.raises(InvalidSettings) as refused:
        read_environment(changed)
    return refused.value.problems


CASES: dict[str, tuple[dict[str, str | None], str, str]] = {
    # name of the case: changes, how the one problem begins, the remedy in it
    "no L1": ({"L1_RPC": None}, "L1_RPC: not set", "set it to an L1 JSON-RPC address"),
    "no node": ({"L2_NODE_RPC": None}, "L2_NODE_RPC: not set", "set it to the op-node's"),
    "no contract": ({"L2OO_ADDRESS": None}, "L2OO_ADDRESS: not set", "L2OutputOracle"),
    "no key": ({"PRIVATE_KEY": None}, "PRIVATE_KEY: not set", "or PRIVATE_KEY_FILE"),
    "key and remote signer": (REMOTE, "PRIVATE_KEY: set together with SIGNER_URL", "unset PRIVATE_KEY to sign with"),
    "signer without an account": (
        REMOTE | {"PRIVATE_KEY": None, "SIGNER_ADDRESS": None},
        "SIGNER_ADDRESS: not set",
        "set it to the address of the account that the remote signer signs for",
    ),
    "account without a signer": (
        REMOTE | {"PRIVATE_KEY": None, "SIGNER_URL": None},
        "SIGNER_URL: not set, but SIGNER_ADDRESS is",
        "set it to the Web3Signer",
    ),
    "key as the signer's account": (
        REMOTE | {"PRIVATE_KEY": None, "SIGNER_ADDRESS": KEY},
        "SIGNER_ADDRESS: not an address",
        "40 hex digits",
    ),
    "signer without scheme": (
        REMOTE | {"PRIVATE_KEY": None, "SIGNER_URL": "signer:9000"},
        "SIGNER_URL: not an http(s) address",
        "https://host",
    ),
    "two signers": (
        REMOTE | {"PRIVATE_KEY": None, "SIGNER_URL": "http://a,http://b"},
        "SIGNER_URL: names several servers",
        "set it to one",
    ),
    "name with capitals": ({"PROPOSER_NAME": "OP-Main"}, "PROPOSER_NAME: 'OP-Main' is not a name", "lowercase letters"),
    "name that is a path": ({"PROPOSER_NAME": "../x"}, "PROPOSER_NAME: '../x' is not a name", "digits and dashes"),
    "name with a dash at its end": ({"PROPOSER_NAME": "op-"}, "PROPOSER_NAME: 'op-' is not a name", "first nor last"),
    "endless name": ({"PROPOSER_NAME": "a" * 64}, "PROPOSER_NAME: 'aaa", "at most 63"),
    "name of Prefect's": ({"PROPOSER_NAME": "prefect-x"}, "PROPOSER_NAME: 'prefect-x' begins", "choose another"),
    "empty is not set": ({"PRIVATE_KEY": "  "}, "PRIVATE_KEY: not set", "set it"),
    "short address": ({"L2OO_ADDRESS": "0x1234"}, "L2OO_ADDRESS: not an address", "40 hex digits"),
    "address without 0x": ({"L2OO_ADDRESS": CHECKSUMMED[2:]}, "L2OO_ADDRESS: not an address", "0x and"),
    "mistyped address": (
        {"L2OO_ADDRESS": CHECKSUMMED.replace("5aAe", "5aae")},
        "L2OO_ADDRESS: 0x5aae",
        "wrong checksum, a digit is mistyped; set it",
    ),
    "zero address": ({"L2OO_ADDRESS": "0x" + "0" * 40}, "L2OO_ADDRESS: is the zero address", "set it to"),
    "key in the wrong place": ({"L2OO_ADDRESS": KEY}, "L2OO_ADDRESS: not an address", "set it to"),
    "short key": ({"PRIVATE_KEY": KEY[:-1]}, "PRIVATE_KEY: not a private key", "64 hex digits"),
    "key of other letters": ({"PRIVATE_KEY": KEY[:-1] + "g"}, "PRIVATE_KEY: not a private key", "64 hex digits"),
    "zero key": ({"PRIVATE_KEY": "0" * 64}, "PRIVATE_KEY: not a private key", "64 hex digits"),
    "key above the order": ({"PRIVATE_KEY": "f" * 64}, "PRIVATE_KEY: not a private key", "64 hex digits"),
    "websocket": ({"L1_RPC": "wss://l1.example.com"}, "L1_RPC: not an http(s) address", "https://host[:port]"),
    "no scheme": ({"L2_NODE_RPC": "localhost:9545"}, "L2_NODE_RPC: not an http(s) address", "https://host"),
    "port of letters": ({"L1_RPC": "http://host:port"}, "L1_RPC: not an http(s) address", "https://host"),
    "explorer with a password": (
        {"EXPLORER_URL": "https://me:hush@explorer.example"},
        "EXPLORER_URL: must be an http(s) address without credentials",
        "https://host[/path]",
    ),
    "metrics on no port": ({"METRICS_PORT": "70000"}, "METRICS_PORT: '70000' is not a port", "from 1 to 65535"),
    "metrics on a name": ({"METRICS_ADDR": "localhost"}, "METRICS_ADDR: 'localhost' is not an IP", "set it to the one"),
    "metrics perhaps": ({"METRICS_ENABLED": "maybe"}, "METRICS_ENABLED: 'maybe' is neither", "set it to one of them"),
    "never ready": ({"READY_TIMEOUT": "soon"}, "READY_TIMEOUT: 'soon' is no time", "set it to seconds"),
    "ready in no time": ({"READY_TIMEOUT": "0"}, "READY_TIMEOUT: '0' is no time", "set it to seconds"),
    "ready too soon": (
        {"READY_TIMEOUT": "90s"},
        "READY_TIMEOUT (90 s) is below two of POLL_INTERVAL (60 s)",
        "raise the first",
    ),
    "half an IPv6 address": ({"L1_RPC": "http://[::1"}, "L1_RPC: not an http(s) address", "https://host"),
    "one of a list": (
        {"L1_RPC": "https://a.example.com,b.example.com/l1-api-key-1234"},
        "L1_RPC: not an http(s)",
        "write it",
    ),
    "two servers": ({"OP_SUCCINCT_SERVER_URL": "http://a,http://b"}, "OP_SUCCINCT_SERVER_URL: names several", "to one"),
    "server without scheme": ({"OP_SUCCINCT_SERVER_URL": "host:3000"}, "OP_SUCCINCT_SERVER_URL: not an", "https://"),
    "zero interval": ({"POLL_INTERVAL": "0"}, "POLL_INTERVAL: Input should be greater than 0", "not '0'"),
    "zero as a duration": ({"LOOK_INTERVAL": "0s"}, "LOOK_INTERVAL: Input should be greater than 0", "not"),
    "negative interval": ({"POLL_INTERVAL": "-1"}, "POLL_INTERVAL: Input should be greater than 0", "not '-1'"),
    "endless interval": ({"POLL_INTERVAL": "inf"}, "POLL_INTERVAL: Input should be", "not 'inf'"),
    "not a number": ({"MAX_PROOF_TIME": "nan"}, "MAX_PROOF_TIME: Input should be", "not 'nan'"),
    "unknown unit": ({"MAX_PROOF_TIME": "2d"}, "MAX_PROOF_TIME: Input should be a valid number", "not '2d'"),
    "half a block": ({"SUBMISSION_INTERVAL": "0.5"}, "SUBMISSION_INTERVAL: Input should be a valid int", "not '0.5'"),
    "no range": ({"MAX_BLOCK_RANGE_PER_SPAN_PROOF": "0"}, "MAX_BLOCK_RANGE_PER_SPAN_PROOF: Input should be", "not '0'"),
    "mock of neither": ({"OP_SUCCINCT_MOCK": "perhaps"}, "OP_SUCCINCT_MOCK: Input should be", "'perhaps'"),
    "more witnesses than requests": (
        {"MAX_CONCURRENT_WITNESS_GEN": "6", "MAX_CONCURRENT_PROOF_REQUESTS": "5"},
        "MAX_CONCURRENT_WITNESS_GEN (6) is above MAX_CONCURRENT_PROOF_REQUESTS (5)",
        "lower the first or raise the second",
    ),
    "first delay above the longest": (
        {"RETRY_DELAY": "1h", "MAX_RETRY_DELAY": "1m"},
        "RETRY_DELAY (3600 s) is above MAX_RETRY_DELAY (60 s)",
        "lower the first or raise the second",
    ),
    "value and file": ({"PRIVATE_KEY_FILE": "/dev/null"}, "PRIVATE_KEY: set either PRIVATE_KEY or", "not both"),
    "open Prefect elsewhere": (
        {"PREFECT_API_URL": "http://prefect.example.com:4200/api"},
        "PREFECT_API_URL: prefect.example.com is not this machine",
        "set PREFECT_API_AUTH_STRING here and PREFECT_SERVER_API_AUTH_STRING there",
    ),
    "looks like loopback": (
        {"PREFECT_API_URL": "http://127.example.com:4200/api"},
        "PREFECT_API_URL: 127.example.com is not this machine",
        "PREFECT_API_AUTH_STRING",
    ),
    "Prefect without scheme": (
        {"PREFECT_API_URL": "prefect.example.com:4200/api"},
        "PREFECT_API_URL: not an http(s) address",
        "write it as http://host:port/api",
    ),
    "dispute games": ({"DGF_ADDRESS": CHECKSUMMED}, "DGF_ADDRESS: proposing through a dispute game", "unset it"),
    "another database": (
        {"DATABASE_URL": "sqlite:///ledger.db"},
        "DATABASE_URL: must begin with postgresql://",
        "PostgreSQL only",
    ),
    "another's webhook as Slack's": (
        {"ALERT_SLACK_WEBHOOK": "https://hooks.example.com/services/T1/B1/l1-api-key-1234"},
        "ALERT_SLACK_WEBHOOK: not a Slack webhook",
        "ALERT_WEBHOOK to that of anything else",
    ),
    "webhook without scheme": ({"ALERT_WEBHOOK": "hooks.example.com"}, "ALERT_WEBHOOK: not an http(s)", "https://host"),
    "two webhooks": (
        {"ALERT_WEBHOOK": "https://a.example.com,https://b.example.com"},
        "ALERT_WEBHOOK: names several addresses",
        "set it to one",
    ),
    "alert after no time": ({"ALERT_SILENT_AFTER": "5s"}, "ALERT_SILENT_AFTER: Input should be greater", "5"),
    "port of the server": ({"PREFECT_SERVER_API_PORT": "65536"}, "PREFECT_SERVER_API_PORT: '65536'", "from 1 to 65535"),
    "port 0": ({"PREFECT_SERVER_API_PORT": "0"}, "PREFECT_SERVER_API_PORT: '0'", "from 1 to 65535"),
    "home of nobody": ({"PROPOSER_HOME": "~no-such-user/x"}, "PROPOSER_HOME: '~no-such-user/x'", "absolute path"),
}


@pytest.mark.parametrize(("changes", "begins", "remedy"), CASES.values(), ids=CASES.keys())
def test_a_problem_is_named_with_its_remedy_and_without_secrets(
    changes: dict[str, str | None], begins: str, remedy: str
) -> None:
    (problem,) = problems(changes)
    assert problem.startswith(begins)
    assert remedy in problem
    assert not [secret for secret in SECRETS if secret in problem]


def test_every_problem_is_named_at_once() -> None:
    """An operator corrects the environment once, not once per problem."""
    found = problems(
        {
            **dict.fromkeys(REQUIRED),
            "POLL_INTERVAL": "0",
            "NUM_CONFIRMATIONS": "0",
            "DATABASE_URL": "mysql://x",
            "DGF_ADDRESS": CHECKSUMMED,
            "PREFECT_SERVER_API_PORT": "x",
        }
    )
    named = {problem.split(":")[0] for problem in found}
    others = {"POLL_INTERVAL", "NUM_CONFIRMATIONS", "DATABASE_URL", "DGF_ADDRESS", "PREFECT_SERVER_API_PORT"}
    assert named == {*REQUIRED, *others}
    assert len(found) == len(named)


def test_four_names_suffice_and_the_rest_has_defaults() -> None:
    """Defaults are op-succinct's; the database and Prefect's server are our own under ~/.proposer."""
    environment = read_environment(GOOD)
    assert environment.settings == ProposerSettings()
    assert environment.server_url.get_secret_value() == "http://127.0.0.1:3000"
    assert environment.database_url is None
    assert environment.prefect_api_url is None
    assert environment.prefect_port == 4200
    assert environment.home == Path("~/.proposer").expanduser().resolve()
    assert not environment.ignored


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("20", 20), ("20.5", 20.5), ("20s", 20), ("500ms", 0.5), ("1h30m", 5400), ("1.5h", 5400), ("2m0.5s", 120.5)],
)
def test_durations_may_be_seconds_or_go_durations(written: str, seconds: float) -> None:
    assert read_environment({**GOOD, "POLL_INTERVAL": written}).settings.poll_interval == pytest.approx(seconds)


def test_an_address_without_checksum_is_taken_and_checksummed() -> None:
    assert read_environment({**GOOD, "L2OO_ADDRESS": CHECKSUMMED.lower()}).oracle_address == CHECKSUMMED


def test_endpoints_may_be_lists() -> None:
    listed = "https://a.example.com/x, http://b.example.com:8545,"
    assert read_environment({**GOOD, "L1_RPC": listed}).l1_rpc.get_secret_value() == listed


def test_a_zero_factory_address_is_no_problem() -> None:
    """op-succinct's own template sets it to zero."""
    read_environment({**GOOD, "DGF_ADDRESS": "0x" + "0" * 40})


@pytest.mark.parametrize(
    ("values", "address"),
    [
        ({}, None),
        ({"METRICS_PORT": "8080"}, ("127.0.0.1", 8080)),
        ({"METRICS_PORT": "8080", "METRICS_ADDR": "0.0.0.0"}, ("0.0.0.0", 8080)),
        ({"METRICS_ENABLED": "true"}, ("127.0.0.1", 7300)),
        ({"METRICS_ENABLED": "False", "METRICS_PORT": "8080"}, None),
    ],
)
def test_metrics_are_served_where_a_port_or_the_switch_says_so(
    values: dict[str, str], address: tuple[str, int] | None
) -> None:
    """On loopback unless an address is given, and on op-succinct's port unless one is."""
    listen = read_environment(GOOD | values).metrics
    assert (listen and (listen.address, listen.port)) == address


def test_a_slow_proposer_is_given_three_cycles_to_be_ready() -> None:
    def ready(**values: str) -> float:
        listen = read_environment(GOOD | {"METRICS_PORT": "7300"} | values).metrics
        assert listen is not None
        return listen.ready_seconds

    assert ready() == 600
    assert ready(POLL_INTERVAL="1h") == 3 * 3600
    assert ready(READY_TIMEOUT="20m") == 1200


def test_names_without_effect_are_listed_with_the_reason() -> None:
    environment = read_environment({**GOOD, "SLACK_TOKEN": "x", "DB_PATH": "x", "L2_RPC": "", "UNKNOWN": "x"})
    assert environment.ignored == {name: IGNORED[name] for name in ("SLACK_TOKEN", "DB_PATH")}


@pytest.mark.parametrize("name", ["ALERT_SLACK_WEBHOOK", "ALERT_WEBHOOK"])
def test_a_webhook_may_come_from_a_file_and_is_shown_nowhere(tmp_path: Path, name: str) -> None:
    url = "https://hooks.slack.com/services/T1/B1/db1pass2word3"
    (tmp_path / "secret").write_text(f"{url}\n")
    environment = read_environment({**GOOD, f"{name}_FILE": str(tmp_path / "secret")})
    assert {setting: secret.get_secret_value() for setting, secret in environment.webhooks.items()} == {name: url}
    assert "db1pass2word3" not in repr(environment)
    assert read_environment(GOOD).webhooks == {}


@pytest.mark.parametrize("name", ["L1_RPC", "L2_NODE_RPC", "PRIVATE_KEY"])
def test_a_secret_may_come_from_a_file(tmp_path: Path, name: str) -> None:
    """White space around it does not belong to it."""
    file = tmp_path / "secret"
    file.write_text(f"{GOOD[name]}\n")
    values = {**GOOD, f"{name}_FILE": str(file)}
    del values[name]
    assert read_environment(values) == read_environment(GOOD)


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "No such file"), (b"", "the file is empty"), (b"\xff\xfe" + KEY.encode(), "not a text file")],
    ids=["missing", "empty", "binary"],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, why: str) -> None:
    """An empty file is not a setting left out: an empty DATABASE_URL_FILE would otherwise start another ledger."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    for name in ("DATABASE_URL", "PREFECT_API_AUTH_STRING", "PRIVATE_KEY"):
        found = problems({name: None, f"{name}_FILE": str(file)})
        assert found[0].startswith(f"{name}_FILE: ")
        assert why in found[0]
        assert KEY not in "".join(found)


def test_a_key_set_as_its_file_is_not_shown() -> None:
    found = problems({"PRIVATE_KEY": None, "PRIVATE_KEY_FILE": KEY})
    assert found[0].startswith("PRIVATE_KEY_FILE: cannot be read")
    assert KEY not in "".join(found)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"])
def test_prefect_on_this_machine_needs_no_password(host: str) -> None:
    url = f"http://{host}:4200/api"
    assert read_environment({**GOOD, "PREFECT_API_URL": url}).prefect_api_url == url


@pytest.mark.parametrize("credential", ["PREFECT_API_AUTH_STRING", "PREFECT_API_KEY"])
def test_prefect_elsewhere_is_fine_with_credentials(credential: str) -> None:
    values = {**GOOD, "PREFECT_API_URL": "https://prefect.example.com/api", credential: "prefect-pass-word"}
    client = client_environment(read_environment(values))
    assert client["PREFECT_API_URL"] == "https://prefect.example.com/api"
    assert client[credential] == "prefect-pass-word"


def test_the_client_uses_our_own_server_and_sends_no_telemetry(tmp_path: Path) -> None:
    client = client_environment(
        read_environment({**GOOD, "PREFECT_SERVER_API_PORT": "4321", "PROPOSER_HOME": str(tmp_path)})
    )
    assert client["PREFECT_API_URL"] == "http://127.0.0.1:4321/api"
    assert client["PREFECT_HOME"] == str(tmp_path / "prefect")
    assert client["PREFECT_WORKER_QUERY_SECONDS"] == "2"
    assert client["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert client["DO_NOT_TRACK"] == "1"


def test_no_secret_is_in_the_text_of_an_environment() -> None:
    secrets = {"DATABASE_URL": "postgresql://me:db-pass-word@host/l", "PREFECT_API_AUTH_STRING": "me:prefect-pass-word"}
    for values in ({**GOOD, **secrets}, with_remote_signer()):
        environment = read_environment(values)
        for text in (repr(environment), str(environment), repr(vars(environment))):
            assert not [secret for secret in SECRETS if secret in text]


def with_remote_signer() -> dict[str, str]:
    """Return the good environment with a remote signer instead of the key."""
    return {name: value for name, value in {**GOOD, **REMOTE}.items() if value is not None and name != "PRIVATE_KEY"}


def test_the_signer_is_a_key_or_a_remote_one(tmp_path: Path) -> None:
    """Its address is a secret, for it may hold a password, and may come from a file; the account's is none."""
    assert read_environment(GOOD).signer == LocalKey(SecretStr(GOOD["PRIVATE_KEY"]))
    values = with_remote_signer() | {"SIGNER_ADDRESS": CHECKSUMMED.lower()}
    signer = read_environment(values).signer
    assert signer == RemoteSigner(SecretStr(str(REMOTE["SIGNER_URL"])), CHECKSUMMED)
    (tmp_path / "url").write_text(values.pop("SIGNER_URL"))
    assert read_environment(values | {"SIGNER_URL_FILE": str(tmp_path / "url")}).signer == signer
    made = signer_block(signer)
    assert (made.address, made.setting) == (CHECKSUMMED, "SIGNER_ADDRESS")
    assert signer_block(read_environment(GOOD).signer).setting == "PRIVATE_KEY"


def test_a_name_has_a_folder_of_its_own(tmp_path: Path) -> None:
    """Two rollups started with nothing but their names share nothing on the machine."""
    homes = [read_environment(GOOD | {"PROPOSER_NAME": name}).home for name in ("proposer", "op-a", "op-b")]
    assert [home.name for home in homes] == [".proposer", ".proposer-op-a", ".proposer-op-b"]
    assert homes[0] == read_environment(GOOD).home
    assert read_environment(GOOD | {"PROPOSER_NAME": "op-a", "PROPOSER_HOME": str(tmp_path)}).home == tmp_path


def test_a_folder_belongs_to_the_name_that_came_first(tmp_path: Path) -> None:
    """Whoever comes under another name is told whose it is; the orders of the other's operator are refused too."""
    home = tmp_path / "home"
    assert problem_with_home(home, "op-a") is None
    assert claim_home(home, "op-a") is None
    assert claim_home(home, "op-a") is None
    problem = claim_home(home, "op-b")
    assert problem is not None
    assert problem.startswith(
        f"PROPOSER_HOME: {home} is the folder of rollup 'op-a', and this is 'op-b'; set PROPOSER_HOME"
    )
    (home / "ledger.url").write_text("postgresql:///x")
    assert ledger_of({"PROPOSER_HOME": str(home), "PROPOSER_NAME": "op-a"})[1] == home
    with pytest.raises(InvalidSettings, match="is the folder of rollup 'op-a', and this is 'proposer'"):
        ledger_of({"PROPOSER_HOME": str(home)})


def test_reading_the_environment_does_not_import_prefect(tmp_path: Path) -> None:
    """Prefect reads its settings when it is imported: they are set from what is read here."""
    program = (
        "import sys, deployments.cli as cli; from deployments.environment import read_environment as read;"
        f"read({GOOD!r}); sys.exit('prefect' in sys.modules)"
    )
    environment = plain_environment(tmp_path)
    assert subprocess.run([sys.executable, "-c", program], env=environment, cwd=ROOT, check=False).returncode == 0


NAMES = sorted(
    {field.alias or "" for field in ProposerSettings.model_fields.values()}
    | {*REQUIRED, "OP_SUCCINCT_SERVER_URL", "DATABASE_URL", "PREFECT_API_URL", "PREFECT_SERVER_API_PORT", "DGF_ADDRESS"}
    | {"PROPOSER_HOME", "PRIVATE_KEY_FILE", "L1_RPC_FILE", "DATABASE_URL_FILE", "PREFECT_API_AUTH_STRING"}
    | {"PROPOSER_NAME", "SIGNER_URL", "SIGNER_ADDRESS"}
    | {"METRICS_PORT", "METRICS_ADDR", "METRICS_ENABLED", "READY_TIMEOUT"}
)
JUNK = st.one_of(
    st.text(max_size=60),
    st.sampled_from(["0", "-1", "1e400", "inf", "9" * 5000, "http://[", "//", "~", "~x", "postgresql://[", "/", "\0"]),
    st.from_regex(r"(https?|postgres(ql)?)://\S{0,20}", fullmatch=True),
    st.from_regex(r"[0-9]{0,3}\.?[0-9]{0,3}(ms|s|m|h)?", fullmatch=True),
)


def said(changes: dict[str, str]) -> str:
    """Return the text of the environment after these changes, or of its refusal; anything else is raised."""
    try:
        return repr(read_environment({**GOOD, **changes}))
    except InvalidSettings as refused:
        return "\n".join(refused.problems)


# how long it takes to think of an example says nothing of the proposer, only of who else uses the machine
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(NAMES), JUNK, max_size=6))
def test_junk_is_refused_in_words_and_never_shows_the_key(junk: dict[str, str]) -> None:
    """Whatever is set: an environment, or `InvalidSettings` with a sentence per problem."""
    text = said(junk)
    assert text
    assert KEY not in text
    assert "l1-api-key-1234" not in text


@given(
    st.from_regex(r"(0x)?[0-9a-fA-F]{50,70}[g-z]?", fullmatch=True), st.sampled_from(["PRIVATE_KEY", "L2OO_ADDRESS"])
)
def test_a_malformed_key_is_never_shown(key: str, name: str) -> None:
    """Nor one that was set as the contract's address."""
    assert key not in said({name: key})
