-- title: Customer satisfaction
-- definition: Net promoter score from surveys, satisfied ratings, and review stars. NPS is 100 x (promoters, who answered 9 or 10, less detractors, 0 to 6) per answer to the question "nps"; CSAT is the share of ratings of 4 or more out of 5. Each counts when it was given.
-- owner: Customer care
-- better: up
-- input: support.survey_completed at completed_at
-- input: support.rating_provided at provided_at
-- input: support.review_submitted at submitted_at
-- dimension: category; what a rating is about
-- value: nps score = 100.0 * (count(CASE WHEN answer >= 9 THEN 1 END) - count(CASE WHEN answer <= 6 THEN 1 END)) / nullif(count(answer), 0); net promoter score, -100 to 100, null without answers
-- value: nps_answers integer = count(answer); answers behind it
-- value: promoters integer = count(CASE WHEN answer >= 9 THEN 1 END); answers of 9 or 10
-- value: detractors integer = count(CASE WHEN answer <= 6 THEN 1 END); answers of 0 to 6
-- value: csat ratio = CAST(count(CASE WHEN score >= 4 THEN 1 END) AS DOUBLE) / nullif(count(score), 0); share of ratings of 4 or more, null without ratings
-- value: ratings integer = count(score); ratings behind it
-- value: review_score stars = CAST(sum(stars) AS DOUBLE) / nullif(count(stars), 0); mean rating of reviews, null without reviews
-- value: reviews integer = count(stars); reviews behind it
-- target: nps 50
SELECT given_at AS at, answer, CAST(NULL AS DOUBLE) AS score, CAST(NULL AS DECIMAL(8, 4)) AS stars, CAST(NULL AS VARCHAR) AS category
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
    )
    WHERE lower(json_get_str(response, 'question')) = 'nps'
)
WHERE answer BETWEEN 0 AND 10
UNION ALL
SELECT coalesce(provided_at, event_time), NULL, score, NULL, category
FROM support.rating_provided
UNION ALL
SELECT coalesce(submitted_at, event_time), NULL, NULL, CAST(rating AS DECIMAL(8, 4)), NULL
FROM support.review_submitted
