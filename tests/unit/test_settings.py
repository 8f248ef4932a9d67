"""The settings: defaults, bounds, messages."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsocial_billing.settings import Settings, SettingsError


def refusal(**environ: str) -> str:
    """The text of the refusal of these variables, each without its BILLING_."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({f"BILLING_{name}": value for name, value in environ.items()})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_empty_environment_gives_the_documented_defaults() -> None:
    """Nothing has to be set for a first run; values as in the table of settings."""
    settings = Settings.from_environment({"PATH": "/bin"})

    assert Settings() == settings
    assert (
        "streamsocial-billing",
        "kafka://127.0.0.1:9092",
        "",
        8,
        0,
        None,
        100,
        0,
        2000,
        500,
        50,
        10,
        8.0,
        86_400,
        None,
    ) == (
        settings.app_id,
        settings.broker,
        settings.topic_prefix,
        settings.partitions,
        settings.replication,
        settings.gateway_url,
        settings.commit_interval_ms,
        settings.commit_distance_ms,
        settings.max_in_flight,
        settings.max_connections,
        settings.max_waiting_per_user,
        settings.session_timeout_s,
        settings.gateway_deadline_s,
        settings.give_up_after_s,
        settings.api_token,
    )


def test_every_plain_variable_is_read_into_its_field() -> None:
    """No variable is accepted and then forgotten."""
    settings = Settings.from_environment(
        {
            "BILLING_APP_ID": "shop",
            "BILLING_BROKER": "kafka://a:1;b:2",
            "BILLING_TOPIC_PREFIX": "test.",
            "BILLING_PARTITIONS": "3",
            "BILLING_REPLICATION": "2",
            "BILLING_GATEWAY_URL": "https://gw.example/",
            "BILLING_DEFAULT_GATEWAY": "stripe",
            "BILLING_COMMIT_INTERVAL_MS": "50",
            "BILLING_COMMIT_DISTANCE_MS": "20",
            "BILLING_MAX_IN_FLIGHT": "7",
            "BILLING_MAX_CONNECTIONS": "9",
            "BILLING_MAX_WAITING_PER_USER": "11",
            "BILLING_SESSION_TIMEOUT_S": "20",
            "BILLING_GATEWAY_DEADLINE_S": "2.5",
            "BILLING_GIVE_UP_AFTER_S": "60",
            "BILLING_API_TOKEN": "t0ken",
        }
    )

    assert settings == Settings(
        app_id="shop",
        broker="kafka://a:1;kafka://b:2",
        topic_prefix="test.",
        partitions=3,
        replication=2,
        gateway_url="https://gw.example",
        default_gateway="stripe",
        commit_interval_ms=50,
        commit_distance_ms=20,
        max_in_flight=7,
        max_connections=9,
        max_waiting_per_user=11,
        session_timeout_s=20,
        gateway_deadline_s=2.5,
        give_up_after_s=60,
        api_token="t0ken",
    )
    assert "test.payments" == settings.topic("payments")
    assert "shop-charges-changelog" == settings.changelog("charges")


@pytest.mark.parametrize(
    ("broker", "urls", "bootstrap"),
    [
        ("kafka://h:1", ["kafka://h:1"], "h:1"),
        ("h", ["kafka://h:9092"], "h:9092"),
        ("kafka://a:1;kafka://b:2", ["kafka://a:1", "kafka://b:2"], "a:1,b:2"),
        ("kafka://[::1]:9093", ["kafka://[::1]:9093"], "[::1]:9093"),
    ],
)
def test_brokers_are_given_as_in_faust(broker: str, urls: list[str], bootstrap: str) -> None:
    """One or more, `;`-separated, scheme and port may be left out."""
    settings = Settings.from_environment({"BILLING_BROKER": broker})

    assert (urls, bootstrap) == (settings.broker_urls, settings.bootstrap)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("APP_ID", "", "1 to 180 characters"),
        ("APP_ID", "my app", "1 to 180 characters"),
        ("TOPIC_PREFIX", "a/b", "A-Z a-z 0-9"),
        ("BROKER", "", "kafka://host:port"),
        ("BROKER", "redis://x:1", "kafka://host:port"),
        ("BROKER", "kafka://h:70000", "kafka://host:port"),
        ("BROKER", "kafka://a:1;", "kafka://host:port"),
        ("PARTITIONS", "0", "from 1 to 1000"),
        ("PARTITIONS", "1001", "from 1 to 1000"),
        ("PARTITIONS", "8.0", "from 1 to 1000"),
        ("PARTITIONS", " 8", "from 1 to 1000"),
        ("PARTITIONS", "1_0", "from 1 to 1000"),
        ("PARTITIONS", "\u0668", "from 1 to 1000"),
        ("PARTITIONS", "", "from 1 to 1000"),
        ("REPLICATION", "-1", "from 1 to 15"),
        ("COMMIT_INTERVAL_MS", "0", "from 1 to 10000"),
        ("COMMIT_DISTANCE_MS", "10001", "from 0 to 10000"),
        ("MAX_IN_FLIGHT", "100001", "from 1 to 100000"),
        ("SESSION_TIMEOUT_S", "9" * 400, "from 1 to 1800"),
        ("GATEWAY_DEADLINE_S", "nan", "seconds from 0.1 to 600"),
        ("GATEWAY_DEADLINE_S", "inf", "seconds from 0.1 to 600"),
        ("GATEWAY_DEADLINE_S", "soon", "seconds from 0.1 to 600"),
        ("GIVE_UP_AFTER_S", "2592001", "from 1 to 2592000"),
        ("GATEWAY_URL", "127.0.0.1:8420", "http://host:port"),
        ("DEFAULT_GATEWAY", "adyen", "one of simulated, stripe, paypal"),
        ("GATEWAY_URL", "ftp://h", "http://host:port"),
        ("GATEWAY_URL", "http://h:x", "http://host:port"),
        ("GATEWAY_URL", "http://h/?a=1", "http://host:port"),
        ("KAFKA_SECURITY_PROTOCOL", "TLS", "PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"),
        ("KAFKA_CA_FILE", "/no/such/file", "readable file"),
    ],
)
def test_a_bad_value_names_the_variable_the_value_and_what_is_allowed(
    name: str, value: str, allowed: str
) -> None:
    """The operator can mend the start from the one line alone."""
    text = refusal(**{name: value})

    assert f"BILLING_{name}={value!r}" in text
    assert allowed in text


def test_an_unknown_variable_suggests_the_nearest_name() -> None:
    """A slip of the finger does not run with a default in silence."""
    assert "did you mean BILLING_PARTITIONS?" in refusal(PARTITION="8")
    assert "BILLING_ZZZ" in refusal(ZZZ="1")


def test_the_deadline_must_be_below_the_session_timeout() -> None:
    """A hung gateway costs a payment its deadline, never the worker its partitions."""
    text = refusal(GATEWAY_DEADLINE_S="10")

    assert "BILLING_GATEWAY_DEADLINE_S=10" in text
    assert "BILLING_SESSION_TIMEOUT_S=10" in text


def test_secrets_come_from_a_file_without_its_line_end(tmp_path: Path) -> None:
    """A mounted secret works as it is."""
    path = tmp_path / "token"
    path.write_text("s3cret\n")

    assert "s3cret" == Settings.from_environment({"BILLING_API_TOKEN_FILE": str(path)}).api_token


def test_webhook_secrets_are_several_while_one_replaces_another(tmp_path: Path) -> None:
    """Separated by `;`, in a file one per line; never without the key that asks for a dispute's charge."""
    path = tmp_path / "secrets"
    path.write_text("whsec_old\r\nwhsec_new\n")
    key = {"BILLING_STRIPE_API_KEY": "sk"}
    for way in ({"": "whsec_old;whsec_new"}, {"_FILE": str(path)}):
        chosen = {f"BILLING_STRIPE_WEBHOOK_SECRETS{end}": value for end, value in way.items()}
        settings = Settings.from_environment(key | chosen)
        assert ("whsec_old", "whsec_new") == settings.webhook_secrets
        assert "whsec" not in repr(settings)
    assert () == Settings().webhook_secrets
    assert "holds no secret" in refusal(STRIPE_API_KEY="sk", STRIPE_WEBHOOK_SECRETS=";")
    assert "BILLING_STRIPE_API_KEY is not" in refusal(STRIPE_WEBHOOK_SECRETS="whsec_x")
    assert "BILLING_PAYPAL_CLIENT_ID is not" in refusal(PAYPAL_WEBHOOK_ID="WEB1")
    paypal = {"PAYPAL_CLIENT_ID": "c", "PAYPAL_CLIENT_SECRET": "s"}
    assert "A-Z a-z 0-9" in refusal(PAYPAL_WEBHOOK_ID="W-1", **paypal)


def test_a_secret_is_never_shown(tmp_path: Path) -> None:
    """Neither repr() nor a refusal carries a secret."""
    path = tmp_path / "token"
    path.write_text("s3cret with blanks")
    settings = Settings.from_environment({"BILLING_API_TOKEN": "s3cret"})

    assert "s3cret" not in repr(settings)
    assert "s3cret" not in refusal(API_TOKEN="s3cret with blanks")
    assert "s3cret" not in refusal(API_TOKEN_FILE=str(path))
    assert "s3cret" not in refusal(GATEWAY_URL="http://me:s3cret@h")
    assert "s3cret" not in refusal(KAFKA_SASL_PASSWORD="s3cret")


def test_a_secret_file_that_helps_nobody_stops_the_start(tmp_path: Path) -> None:
    """An empty, missing or doubled secret is never taken for "no secret"."""
    empty = tmp_path / "empty"
    empty.write_text("\n")

    assert "is empty" in refusal(API_TOKEN_FILE=str(empty))
    assert "No such file" in refusal(API_TOKEN_FILE=str(tmp_path / "none"))
    assert "both set" in refusal(API_TOKEN_FILE=str(empty), API_TOKEN="x")


def test_empty_optional_values_count_as_unset() -> None:
    """Compose files may pass `${VARIABLE:-}`."""
    names = ("TOPIC_PREFIX", "API_TOKEN", "API_TOKEN_FILE", "KAFKA_CA_FILE", "KAFKA_SECURITY_PROTOCOL")

    assert Settings() == Settings.from_environment({f"BILLING_{name}": "" for name in names})


def test_plaintext_clients_get_the_brokers_only() -> None:
    """Nothing about TLS reaches librdkafka unless asked for."""
    assert {"bootstrap.servers": "127.0.0.1:9092"} == Settings().client_config()


def test_tls_and_sasl_reach_the_client(tmp_path: Path) -> None:
    """Every Kafka setting ends up under librdkafka's name for it."""
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_text("pem")
    settings = Settings.from_environment(
        {
            "BILLING_BROKER": "kafka://b:9093",
            "BILLING_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "BILLING_KAFKA_CA_FILE": str(tmp_path / "ca"),
            "BILLING_KAFKA_CERT_FILE": str(tmp_path / "cert"),
            "BILLING_KAFKA_KEY_FILE": str(tmp_path / "key"),
            "BILLING_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "BILLING_KAFKA_SASL_USERNAME": "app",
            "BILLING_KAFKA_SASL_PASSWORD": "pw",
        }
    )

    assert {
        "bootstrap.servers": "b:9093",
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(tmp_path / "ca"),
        "ssl.certificate.location": str(tmp_path / "cert"),
        "ssl.key.location": str(tmp_path / "key"),
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "app",
        "sasl.password": "pw",
    } == settings.client_config()


def test_half_a_tls_or_sasl_setting_stops_the_start(tmp_path: Path) -> None:
    """Nobody believes to be encrypted or known while the connection is plain."""
    pem = tmp_path / "pem"
    pem.write_text("pem")

    assert "does not encrypt" in refusal(KAFKA_CA_FILE=str(pem))
    assert "both or neither" in refusal(KAFKA_SECURITY_PROTOCOL="SSL", KAFKA_CERT_FILE=str(pem))
    assert "BILLING_KAFKA_SASL_MECHANISM is not set" in refusal(KAFKA_SECURITY_PROTOCOL="SASL_SSL")
    assert "does not use it" in refusal(KAFKA_SASL_USERNAME="app")


@given(st.text(), st.sampled_from(["PARTITIONS", "GATEWAY_DEADLINE_S", "GATEWAY_URL", "BROKER", "APP_ID"]))
def test_any_text_is_either_taken_or_refused_with_a_settings_error(value: str, name: str) -> None:
    """No value of a variable leads to another exception."""
    try:
        Settings.from_environment({f"BILLING_{name}": value})
    except SettingsError as error:
        assert f"BILLING_{name}" in str(error)


def test_the_days_of_dunning_are_rising_whole_numbers() -> None:
    """Or none at all."""
    for value, days in (("1,3,5,7", (1, 3, 5, 7)), ("30", (30,)), ("", ())):
        settings = Settings.from_environment({"BILLING_DUNNING_DAYS": value})
        assert days == settings.dunning_after_days
    for value in ("0", "3,1", "1,1", "61", "1,", "1, 3", "-1", "one", ",".join(map(str, range(1, 22)))):
        assert f"BILLING_DUNNING_DAYS={value!r} is not allowed" in refusal(DUNNING_DAYS=value)


@pytest.mark.parametrize("value", ["kafka://me:hunter2@kafka:9092", "kafka://a:1;kafka://me:hunter2@b:9092"])
def test_a_password_in_a_broker_url_is_not_quoted(value: str) -> None:
    """It is refused, as Kafka's credentials have settings of their own; the line is read by many."""
    with pytest.raises(SettingsError, match="hidden: it carries a password") as refused:
        Settings.from_environment({"BILLING_BROKER": value})
    assert "hunter2" not in str(refused.value)
