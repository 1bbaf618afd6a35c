-- title: Customer satisfaction
-- definition: Net promoter score from surveys, satisfied ratings, and review stars. NPS is 100 x (promoters, who answered 9 or 10, less detractors, 0 to 6) per answer to the question "nps"; CSAT is the share of ratings of 4 or more out of 5. Each counts when it was given.
-- grain: hour
-- input: support.survey_completed at completed_at
-- input: support.rating_provided at provided_at
-- input: support.review_submitted at submitted_at
-- value: nps score; net promoter score, -100 to 100, null without answers
-- value: nps_answers integer; answers behind it
-- value: promoters integer; answers of 9 or 10
-- value: detractors integer; answers of 0 to 6
-- value: csat ratio; share of ratings of 4 or more, null without ratings
-- value: ratings integer; ratings behind it
-- value: review_score stars; mean rating of reviews, null without reviews
-- value: reviews integer; reviews behind it
SELECT
    bucket,
    100.0 * (sum(promoters) - sum(detractors)) / nullif(sum(answers), 0) AS nps,
    sum(answers) AS nps_answers,
    sum(promoters) AS promoters,
    sum(detractors) AS detractors,
    cast(sum(satisfied) AS DOUBLE) / nullif(sum(ratings), 0) AS csat,
    sum(ratings) AS ratings,
    max(review_score) AS review_score,
    sum(reviews) AS reviews
FROM (
    SELECT
        bucket(given_at) AS bucket,
        count(*) AS answers,
        count(*) FILTER (WHERE answer >= 9) AS promoters,
        count(*) FILTER (WHERE answer <= 6) AS detractors,
        0 AS ratings,
        0 AS satisfied,
        0 AS reviews,
        cast(NULL AS DOUBLE) AS review_score
    FROM (
        SELECT
            given_at,
            coalesce(
                json_get_float(response, 'answer'),
                json_get_float(response, 'score'),
                json_get_float(response, 'value')
            ) AS answer
        FROM (
            SELECT coalesce(completed_at, event_time) AS given_at, unnest(responses) AS response
            FROM support.survey_completed
            WHERE coalesce(completed_at, event_time) >= $from AND coalesce(completed_at, event_time) < $to
        )
        WHERE lower(json_get_str(response, 'question')) = 'nps'
    )
    WHERE answer BETWEEN 0 AND 10
    GROUP BY 1
    UNION ALL
    SELECT
        bucket(coalesce(provided_at, event_time)), 0, 0, 0,
        count(*), count(*) FILTER (WHERE score >= 4), 0, cast(NULL AS DOUBLE)
    FROM support.rating_provided
    WHERE coalesce(provided_at, event_time) >= $from AND coalesce(provided_at, event_time) < $to
    GROUP BY 1
    UNION ALL
    SELECT bucket(coalesce(submitted_at, event_time)), 0, 0, 0, 0, 0, count(*), avg(rating)
    FROM support.review_submitted
    WHERE coalesce(submitted_at, event_time) >= $from AND coalesce(submitted_at, event_time) < $to
    GROUP BY 1
)
GROUP BY bucket
