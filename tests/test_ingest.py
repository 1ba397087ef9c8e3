from tests.conftest import Client, order


async def test_an_order_is_stored_once_however_often_it_is_sent(client: Client) -> None:
    placed = order("o-1")
    assert await client.record(placed) == {"accepted": 1, "duplicates": 0, "rejected": 0, "errors": []}
    assert await client.record(placed) == {"accepted": 0, "duplicates": 1, "rejected": 0, "errors": []}
    customer = await client.get("/v1/customers/c-1")
    assert customer["summary"]["order_count"] == 1
    assert customer["summary"]["net_spend"] == "10.00"
