-- title: Search activity
-- definition: Searches made, result pages shown and how many of them were empty, and filters applied, by what they filter; each at its event's time.
-- owner: Growth
-- better: up
-- input: browsing.user_searched
-- input: browsing.search_results_displayed
-- input: browsing.filter_applied
-- dimension: filter; what a filter is on
-- value: searches integer = count(searcher); searches made
-- value: searchers integer = count(DISTINCT searcher); shoppers who searched
-- value: result_pages integer = count(result_count); result pages shown
-- value: zero_results integer = count(CASE WHEN result_count = 0 THEN 1 END); of these, empty
-- value: zero_result_share ratio = CAST(count(CASE WHEN result_count = 0 THEN 1 END) AS DOUBLE) / nullif(count(result_count), 0); empty of those shown
-- value: filters_applied integer = count(filter); filters applied
SELECT event_time AS at, user_id AS searcher, CAST(NULL AS BIGINT) AS result_count, CAST(NULL AS VARCHAR) AS filter FROM browsing.user_searched
UNION ALL
SELECT event_time, NULL, result_count, NULL FROM browsing.search_results_displayed
UNION ALL
SELECT event_time, NULL, NULL, filter_type FROM browsing.filter_applied
