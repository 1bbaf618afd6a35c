-- title: Accounts
-- definition: Accounts opened (createdAt) and people who signed in (loggedInAt), each once in a bucket.
-- owner: Growth
-- better: up
-- input: accounts.account_created at created_at
-- input: accounts.login_successful at logged_in_at
-- value: new_accounts integer = count(DISTINCT opened); accounts opened
-- value: active_accounts integer = count(DISTINCT active); people who signed in
-- value: logins integer = count(active); times somebody signed in
SELECT coalesce(created_at, event_time) AS at, user_id AS opened, CAST(NULL AS VARCHAR) AS active FROM accounts.account_created
UNION ALL
SELECT coalesce(logged_in_at, event_time), NULL, user_id FROM accounts.login_successful
