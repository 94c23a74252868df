from tests.integration.conftest import world as world
