-- title: Marketing
-- definition: Messages sent by channel (email, sms, push), advertisements clicked, visits, and newsletters subscribed to and given up; each at its own time. A click's channel is its source, a visit's where it came from.
-- owner: Growth
-- better: up
-- input: marketing.email_sent at sent_at
-- input: marketing.sms_sent at sent_at
-- input: marketing.push_notification_sent at sent_at
-- input: marketing.ad_clicked at clicked_at
-- input: marketing.landing_page_visited at visited_at
-- input: marketing.newsletter_subscribed at subscribed_at
-- input: marketing.newsletter_unsubscribed at unsubscribed_at
-- dimension: channel; by which way
-- dimension: campaign; the campaign
-- value: sent integer = count(sent); messages sent
-- value: clicked integer = count(clicked); advertisements clicked
-- value: visits integer = count(visited); landing pages visited
-- value: subscribed integer = count(subscribed); newsletters subscribed to
-- value: unsubscribed integer = count(unsubscribed); newsletters given up
-- value: clicks_per_message ratio = CAST(count(clicked) AS DOUBLE) / nullif(count(sent), 0); clicks per message sent
SELECT coalesce(sent_at, event_time) AS at, 'email' AS channel, campaign_id AS campaign, email_id AS sent, CAST(NULL AS VARCHAR) AS clicked, CAST(NULL AS VARCHAR) AS visited, CAST(NULL AS VARCHAR) AS subscribed, CAST(NULL AS VARCHAR) AS unsubscribed
FROM marketing.email_sent
UNION ALL
SELECT coalesce(sent_at, event_time), 'sms', campaign_id, sms_id, NULL, NULL, NULL, NULL FROM marketing.sms_sent
UNION ALL
SELECT coalesce(sent_at, event_time), 'push', campaign_id, notification_id, NULL, NULL, NULL, NULL FROM marketing.push_notification_sent
UNION ALL
SELECT coalesce(clicked_at, event_time), source, campaign_id, NULL, ad_id, NULL, NULL, NULL FROM marketing.ad_clicked
UNION ALL
SELECT coalesce(visited_at, event_time), referral_source, campaign_id, NULL, NULL, page_id, NULL, NULL FROM marketing.landing_page_visited
UNION ALL
SELECT coalesce(subscribed_at, event_time), 'email', NULL, NULL, NULL, NULL, subscription_id, NULL FROM marketing.newsletter_subscribed
UNION ALL
SELECT coalesce(unsubscribed_at, event_time), 'email', NULL, NULL, NULL, NULL, NULL, subscription_id FROM marketing.newsletter_unsubscribed
