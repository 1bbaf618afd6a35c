-- title: Offer volume
-- definition: Offers made to sellers and how they were answered. An offer counts when it was generated; an answer counts when it was given (acceptedAt, rejectedAt, expiredAt), else at its event's time.
-- grain: hour
-- input: acquisition.ai_offer_generated
-- input: acquisition.offer_accepted at accepted_at
-- input: acquisition.offer_rejected at rejected_at
-- input: acquisition.offer_expired at expired_at
-- value: offers_generated integer; offers made, each once
-- value: offers_accepted integer; offers accepted in the bucket
-- value: offers_rejected integer; offers rejected in the bucket
-- value: offers_expired integer; offers that lapsed in the bucket
-- value: acceptance_rate ratio; accepted per generated in the bucket, null when none was generated
-- value: average_offer CAD; mean amount offered, null when none was generated
SELECT
    bucket,
    sum(generated) AS offers_generated,
    sum(accepted) AS offers_accepted,
    sum(rejected) AS offers_rejected,
    sum(expired) AS offers_expired,
    cast(sum(accepted) AS DOUBLE) / nullif(sum(generated), 0) AS acceptance_rate,
    max(average_offer) AS average_offer
FROM (
    SELECT
        bucket(event_time) AS bucket,
        count(DISTINCT offer_id) AS generated,
        0 AS accepted,
        0 AS rejected,
        0 AS expired,
        cast(sum(offer_amount) AS DOUBLE) / count(*) AS average_offer
    FROM acquisition.ai_offer_generated
    WHERE event_time >= $from AND event_time < $to
    GROUP BY 1
    UNION ALL
    SELECT bucket(accepted_at), 0, count(*), 0, 0, cast(NULL AS DOUBLE)
    FROM acquisition.offer_accepted
    WHERE accepted_at >= $from AND accepted_at < $to
    GROUP BY 1
    UNION ALL
    SELECT bucket(coalesce(rejected_at, event_time)), 0, 0, count(*), 0, cast(NULL AS DOUBLE)
    FROM acquisition.offer_rejected
    WHERE coalesce(rejected_at, event_time) >= $from AND coalesce(rejected_at, event_time) < $to
    GROUP BY 1
    UNION ALL
    SELECT bucket(coalesce(expired_at, event_time)), 0, 0, 0, count(*), cast(NULL AS DOUBLE)
    FROM acquisition.offer_expired
    WHERE coalesce(expired_at, event_time) >= $from AND coalesce(expired_at, event_time) < $to
    GROUP BY 1
)
GROUP BY bucket
