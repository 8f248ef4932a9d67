-- Revenue by minute, product, currency, in minor units. DuckDB, in the folder of the export.
SELECT
    date_trunc('minute', epoch_ms(value.processed_at)) AS minute,
    value.product AS product,
    value.currency AS currency,
    coalesce(sum(value.amount_minor) FILTER (value.action = 'charge'), 0)::BIGINT AS charged_minor,
    coalesce(sum(value.amount_minor) FILTER (value.action = 'refund'), 0)::BIGINT AS refunded_minor,
    charged_minor - refunded_minor AS revenue_minor
FROM read_json('charge-results.jsonl', format = 'newline_delimited', columns = {
    value: 'STRUCT(processed_at BIGINT, product VARCHAR, currency VARCHAR, action VARCHAR, status VARCHAR,
                   replayed BOOLEAN, amount_minor BIGINT)'})
WHERE value.status = 'succeeded' AND NOT value.replayed
GROUP BY ALL
ORDER BY ALL;
