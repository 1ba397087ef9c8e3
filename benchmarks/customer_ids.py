"""What the customers of a benchmark are called; also read by Feast's interpreter, which has none of our packages."""


def customer_id(number: int) -> str:
    return f"c-{number:07}"
