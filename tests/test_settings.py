"""Settings by environment: the names that are known, and those that only look like it."""

import pytest

from app.settings import unknown_settings, variable_names


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PERENNIAL_DATABASE", "PERENNIAL_DATABASE_URL"),
        ("PERENNIAL_DATABSE_URL", "PERENNIAL_DATABASE_URL"),
        ("PERENNIAL_WEB_CONCURRENCY", "WEB_CONCURRENCY"),
        ("perennial_loglevel", "PERENNIAL_LOG_LEVEL"),
        ("Perennial_Xyzzy_Quux_Plugh_Fnord", None),
        ("PERENNIAL_PORT", "PORT"),
        ("PERENNIAL_XYZZY_QUUX_PLUGH_FNORD", None),
    ],
)
def test_a_name_that_is_nearly_a_setting_names_the_one_that_is_meant(name: str, meant: str | None) -> None:
    assert unknown_settings({name: "1", "HOME": "/root"}) == {name: meant}


@pytest.mark.parametrize("name", [*variable_names(), "perennial_log_level", "Perennial_Docs"])
def test_settings_are_known(name: str) -> None:
    assert unknown_settings({name: "1"}) == {}


@pytest.mark.parametrize("service", ["PERENNIAL", "PERENNIAL_WEB"])
def test_what_others_set_is_left_alone(service: str) -> None:
    kubernetes = {
        f"{service}_PORT": "tcp://10.0.0.7:80",
        f"{service}_PORT_80_TCP": "tcp://10.0.0.7:80",
        f"{service}_PORT_80_TCP_ADDR": "10.0.0.7",
        f"{service}_SERVICE_HOST": "10.0.0.7",
        f"{service}_SERVICE_PORT": "80",
        f"{service}_SERVICE_PORT_HTTP": "80",
    }
    assert unknown_settings({**kubernetes, "PERENNIAL_KEY": "prn_a", "PERENNIAL_TEST_CITUS_URL": "postgresql://"}) == {}
