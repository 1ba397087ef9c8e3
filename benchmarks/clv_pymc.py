"""One pymc-marketing model, in the environment that has it: fits by maximum a posteriori and forecasts.

    /path/to/pymc/bin/python benchmarks/clv_pymc.py MODEL INPUT.npz OUTPUT.npz HORIZON

MODEL is bg_nbd, mbg_nbd or pareto_nbd. Called by the other CLV benchmarks; nothing of Perennial is imported.
"""

import sys
import time
import warnings

import numpy as np
import pandas as pd

warnings.simplefilter("ignore")


def main() -> None:
    from pymc_marketing import clv

    name, source, target, horizon = sys.argv[1:5]
    columns = np.load(source)
    data = pd.DataFrame({key: columns[key] for key in ("frequency", "recency", "T")})
    data["customer_id"] = np.arange(len(data))
    kinds = {"bg_nbd": clv.BetaGeoModel, "mbg_nbd": clv.ModifiedBetaGeoModel, "pareto_nbd": clv.ParetoNBDModel}
    model = kinds[name](data=data)
    start = time.perf_counter()
    model.fit(method="map", progressbar=False)
    fitted = time.perf_counter() - start
    start = time.perf_counter()
    expected = model.expected_purchases(future_t=float(horizon))
    forecast = time.perf_counter() - start
    lifetime = float("nan")
    if "monetary" in columns:
        data["future_spend"] = np.maximum(columns["monetary"], 0.01)
        start = time.perf_counter()
        spend = data.rename(columns={"future_spend": "x"})["x"].to_numpy()
        monthly = np.zeros(len(data))
        before = 0.0
        for month in range(1, 13):
            now = model.expected_purchases(future_t=30.0 * month).to_numpy().ravel()
            monthly += (now - before) * spend / 1.1 ** (month * 30 / 365)
            before = now
        lifetime = time.perf_counter() - start
    np.savez(target, expected=expected.to_numpy().ravel(), fit=fitted, forecast=forecast, lifetime=lifetime)


if __name__ == "__main__":
    main()
