"""Every KPI by UTC day, counted naively over a file of events: python3 oracle.py history.ndjson > expected.json"""

import calendar
import json
import statistics
import sys
from collections import defaultdict
from datetime import datetime, timedelta, timezone

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
HOUR, DAY = 3_600_000_000, 86_400_000_000


def micros(text):
    time = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc)
    return (time - EPOCH) // timedelta(microseconds=1)


def day(at):
    return (EPOCH + timedelta(days=at // DAY)).strftime("%Y-%m-%dT00:00:00Z")


class Event:
    def __init__(self, line):
        self.id, self.data = line["eventId"], line["data"]
        self.time = micros(line["timestamp"])

    def at(self, field=None):
        text = self.data.get(field) if field else None
        return micros(text) if text else self.time

    def __getitem__(self, field):
        return self.data.get(field)


def read(file):
    seen, events = set(), defaultdict(list)
    for line in open(file, encoding="utf-8"):
        try:
            line = json.loads(line)
            event = Event(line)
        except (ValueError, KeyError, TypeError):
            continue
        if event.id not in seen:
            seen.add(event.id)
            events[line["eventType"]].append(event)
    for of_type in events.values():
        of_type.sort(key=lambda event: (event.time, event.id))
    return events


def ratio(part, whole):
    return part / whole if whole else None


def mean(values):
    return sum(values) / len(values) if values else None


def by_day(facts):
    """Facts are (when, kind, what); each day has a list of every kind."""
    days = defaultdict(lambda: defaultdict(list))
    for at, kind, what in facts:
        days[day(at)][kind].append(what)
    return days


def sales_volume(e):
    facts = [(s.at("soldAt"), "sold", s) for s in e["VehicleSold"]]
    facts += [(r.at("returnedAt"), "returned", r) for r in e["VehicleReturned"]]
    for at, of in by_day(facts).items():
        units, revenue = len({s["listingId"] for s in of["sold"]}), sum(s["finalPrice"] for s in of["sold"])
        yield at, dict(units_sold=units, revenue=revenue, average_price=ratio(revenue, units),
                       units_returned=len(of["returned"]), net_units=units - len(of["returned"]))


def offer_volume(e):
    facts = [(o.time, "made", o) for o in e["AIOfferGenerated"]]
    for name, field in (("Accepted", "acceptedAt"), ("Rejected", "rejectedAt"), ("Expired", "expiredAt")):
        facts += [(o.at(field), name, o) for o in e["Offer" + name]]
    for at, of in by_day(facts).items():
        made = len({o["offerId"] for o in of["made"]})
        yield at, dict(offers_generated=made, offers_accepted=len(of["Accepted"]), offers_rejected=len(of["Rejected"]),
                       offers_expired=len(of["Expired"]), acceptance_rate=ratio(len(of["Accepted"]), made),
                       average_offer=mean([o["offerAmount"] for o in of["made"]]))


def production_rate(e):
    started = defaultdict(list)
    for s in e["ProductionStarted"]:
        started[s["vehicleId"]].append(s.at("startedAt"))
    for at, of in by_day((q.time, "done", q) for q in e["QualityCheckCompleted"]).items():
        hours = []
        for q in of["done"]:
            before = [s for s in started[q["vehicleId"]] if s <= q.time]
            if before:
                hours.append(q.time - max(before))
        yield at, dict(vehicles_completed=len({q["vehicleId"] for q in of["done"]}),
                       average_hours_per_vehicle=ratio(sum(hours) / HOUR, len(hours)))


def customer_satisfaction(e):
    facts = []
    for s in e["SurveyCompleted"]:
        for r in s["responses"]:
            if r.get("question", "").lower() == "nps":
                answer = next((r[k] for k in ("answer", "score", "value") if r.get(k) is not None), None)
                if answer is not None and 0 <= answer <= 10:
                    facts.append((s.at("completedAt"), "nps", answer))
    facts += [(r.at("providedAt"), "rating", r["score"]) for r in e["RatingProvided"]]
    facts += [(r.at("submittedAt"), "review", r["rating"]) for r in e["ReviewSubmitted"]]
    for at, of in by_day(facts).items():
        good, bad = sum(a >= 9 for a in of["nps"]), sum(a <= 6 for a in of["nps"])
        yield at, dict(nps=ratio(100.0 * (good - bad), len(of["nps"])), nps_answers=len(of["nps"]), promoters=good,
                       detractors=bad, csat=ratio(sum(s >= 4 for s in of["rating"]), len(of["rating"])),
                       ratings=len(of["rating"]), review_score=mean(of["review"]), reviews=len(of["review"]))


def inventory(e):
    changes = [(p.time, p.id, p["listingId"], True, None, p["price"])
               for p in e["ListingPublished"] + e["VehicleListedForSale"]]
    changes += [(g.time, g.id, g["listingId"], False, False, None) for g in e["VehicleSold"] + e["ListingDeactivated"]]
    changes += [(p.time, p.id, p["listingId"], None, None, p["price"]) for p in e["PriceSet"]]
    changes += [(r.time, r.id, r["listingId"], None, True, None) for r in e["ReservationConfirmed"]]
    changes += [(r.time, r.id, r["listingId"], None, False, None) for r in e["ReservationExpired"]]
    changes = sorted(c for c in changes if c[2] is not None)
    state, days = {}, {}
    for at, _, listing, public, held, price in changes:
        known = state.get(listing, (False, False, 0))
        state[listing] = tuple(new if new is not None else old for new, old in zip((public, held, price), known))
        offered = [s for s in state.values() if s[0]]
        days[day(at)] = dict(total=len(offered), reserved=sum(s[1] for s in offered),
                             available=sum(not s[1] for s in offered), value=sum(s[2] for s in offered))
    return days.items()


MARKET_SIZE = 42_000


def market_share(e):
    facts = [(m.at("calculatedAt"), "share", m) for m in e["MarketShareCalculated"]]
    facts += [(s.at("soldAt"), "sold", s["listingId"]) for s in e["VehicleSold"]]
    for at, of in by_day(facts).items():
        latest = max(of["share"], key=lambda m: (m.at("calculatedAt"), m.id), default=None)
        units, days = len(set(of["sold"])), 366 if calendar.isleap(int(at[:4])) else 365
        yield at, dict(market_share=latest and latest["marketShare"], units_sold=units,
                       share_of_market_size=ratio(units, MARKET_SIZE / days))


def percentile(values, share):
    values = sorted(values)
    place = share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)


def days_to_sell(e):
    public = defaultdict(list)
    for p in e["ListingPublished"] + e["VehicleListedForSale"]:
        public[p["listingId"]].append(p.time)
    for at, of in by_day((s.at("soldAt"), "sold", s) for s in e["VehicleSold"]).items():
        took = []
        for s in of["sold"]:
            before = [p for p in public[s["listingId"]] if p <= s.at("soldAt")]
            if before:
                took.append((s.at("soldAt") - min(before)) / DAY)
        slow = sum(d > 90 for d in took)
        yield at, dict(units=len(took), mean_days=mean(took), median_days=statistics.median(took) if took else None,
                       p90_days=percentile(took, 0.9) if took else None, slow_movers=slow, slow_share=ratio(slow, len(took)))


def vehicle_of(e):
    listed = {v["listingId"]: v["vehicleId"] for v in e["VehicleListingCreated"]}
    return lambda sale: sale["vehicleId"] or listed.get(sale["listingId"])


def gross_margin(e):
    bought, repairs, vehicle = defaultdict(list), defaultdict(list), vehicle_of(e)
    for p in e["VehiclePurchased"]:
        bought[p["vehicleId"]].append(p)
    for r in e["RepairCompleted"]:
        repairs[r["vehicleId"]].append(r)
    for at, of in by_day((s.at("soldAt"), "sold", s) for s in e["VehicleSold"]).items():
        revenue, paid, repaired, units = 0, 0, 0, 0
        for s in of["sold"]:
            before = [p for p in bought[vehicle(s)] if p.time <= s.at("soldAt")]
            if before:
                units, revenue, paid = units + 1, revenue + s["finalPrice"], paid + before[-1]["amount"]
                repaired += sum(r["actualCost"] or 0 for r in repairs[vehicle(s)] if r.time <= s.at("soldAt"))
        if units:
            margin = revenue - paid - repaired
            yield at, dict(units=units, revenue=revenue, purchase_cost=paid, reconditioning_cost=repaired,
                           gross_margin=margin, margin_per_unit=margin / units, margin_rate=margin / revenue)


def inventory_turnover(e):
    bought = defaultdict(list)
    for p in e["VehiclePurchased"]:
        bought[p["vehicleId"]].append(p.time)
    for at, of in by_day((s.at("soldAt"), "sold", s) for s in e["VehicleSold"]).items():
        took = []
        for s in of["sold"]:
            before = [p for p in bought[s["vehicleId"]] if p <= s.at("soldAt")]
            if before:
                took.append(s.at("soldAt") - max(before))
        if took:
            yield at, dict(turns_per_year=365 * DAY * len(took) / sum(took), days_in_stock=mean(took) / DAY, units=len(took))


def funnel(e):
    facts = []
    for name, kind, field in (("UserSearched", "searched", "userId"), ("VehicleViewed", "viewed", "userId"),
                              ("ReservationConfirmed", "reserved", "reservationId"), ("DocumentsSigned", "agreed", "agreementId"),
                              ("DeliveryCompleted", "delivered", "deliveryId"), ("CustomerPickupCompleted", "delivered", "pickupId"),
                              ("VehicleKept", "kept", "trialId")):
        facts += [(x.time, kind, x[field]) for x in e[name]]
    for at, of in by_day(facts).items():
        count = lambda kind: len({x for x in of[kind] if x is not None})
        yield at, dict({kind: count(kind) for kind in ("searched", "viewed", "reserved", "agreed", "delivered", "kept")},
                       reserved_per_viewer=ratio(count("reserved"), count("viewed")),
                       kept_per_delivery=ratio(count("kept"), count("delivered")))


def return_rate(e):
    facts = [(r.at("returnedAt"), "returned", r) for r in e["VehicleReturned"]]
    facts += [(x.at("exchangedAt"), "exchanged", x) for x in e["VehicleExchanged"]]
    facts += [(k.at("keptAt"), "kept", k) for k in e["VehicleKept"]]
    for at, of in by_day(facts).items():
        counts = {kind: len(of[kind]) for kind in ("returned", "exchanged", "kept")}
        ended = sum(counts.values())
        yield at, dict(counts, return_rate=ratio(counts["returned"], ended), exchange_rate=ratio(counts["exchanged"], ended))


def delivery_performance(e):
    due = {d["deliveryId"]: d.at("scheduledDate") // DAY * DAY + DAY for d in e["DeliveryScheduled"]}
    left = {d["deliveryId"]: d.at("departedAt") for d in e["VehicleInTransit"]}
    for at, of in by_day((d.at("deliveredAt"), "done", d) for d in e["DeliveryCompleted"]).items():
        planned = [d for d in of["done"] if d["deliveryId"] in due]
        on_time = sum(d.at("deliveredAt") < due[d["deliveryId"]] for d in planned)
        road = [(d.at("deliveredAt") - left[d["deliveryId"]]) / HOUR for d in of["done"] if d["deliveryId"] in left]
        yield at, dict(deliveries=len(of["done"]), on_time=on_time, on_time_rate=ratio(on_time, len(planned)), average_hours=mean(road))


def reconditioning(e):
    began = {}
    for w in e["ReconditioningStarted"]:
        began[w["workOrderId"]] = min(began.get(w["workOrderId"], w.at("startedAt")), w.at("startedAt"))
    facts = [(r.at("completedAt"), "repair", r) for r in e["RepairCompleted"]]
    facts += [(p.time, "point", p["status"].lower() in ("pass", "passed", "ok")) for p in e["InspectionPointCompleted"]]
    for at, of in by_day(facts).items():
        cost, vehicles = sum(r["actualCost"] or 0 for r in of["repair"]), len({r["vehicleId"] for r in of["repair"]})
        hours = [(r.at("completedAt") - began[r["workOrderId"]]) / HOUR for r in of["repair"] if r["workOrderId"] in began]
        yield at, dict(repairs=len(of["repair"]), cost=cost, vehicles=vehicles, cost_per_vehicle=ratio(cost, vehicles),
                       repairs_per_vehicle=ratio(len(of["repair"]), vehicles), average_hours=mean(hours),
                       points_checked=len(of["point"]), pass_rate=mean(of["point"]))


def acquisition(e):
    offered = {}
    for o in e["AIOfferGenerated"]:
        offered.setdefault(o["offerId"], o.time)
    facts = [(p.time, "bought", p) for p in e["VehiclePurchased"]]
    facts += [(i.time, "inspected", i) for i in e["InspectionCompleted"]]
    facts += [(a.time, "change", a["adjustedAmount"] - a["originalAmount"]) for a in e["OfferAdjusted"]]
    for at, of in by_day(facts).items():
        hours = [(p.time - offered[p["offerId"]]) / HOUR for p in of["bought"] if p["offerId"] in offered]
        amounts = [p["amount"] for p in of["bought"]]
        yield at, dict(vehicles_bought=len({p["vehicleId"] for p in of["bought"]}), spend=sum(amounts), average_cost=mean(amounts),
                       offer_to_purchase_hours=mean(hours), inspections=len(of["inspected"]), adjustments=len(of["change"]),
                       adjustment_rate=ratio(len(of["change"]), len(of["inspected"])), average_adjustment=mean(of["change"]))


def pricing(e):
    prices, facts = defaultdict(list), []
    for p in e["PriceSet"]:
        before = prices[p["listingId"]]
        facts.append((p.time, "set", (p["listingId"], p["price"], before[-1] if before else None)))
        before.append(p["price"])
    facts += [(s.at("soldAt"), "sold", s) for s in e["VehicleSold"]]
    vehicles = {c["listingId"]: c["vehicleId"] for c in e["VehicleListingCreated"]}
    firsts = {p["listingId"]: p for p in reversed(e["PriceSet"])}
    asked = [(p.time, vehicles.get(p["listingId"]), p["price"]) for p in firsts.values()]
    asked += [(d.at("listedAt"), d["vehicleId"], d["price"]) for d in e["VehicleListed"] if d["price"] is not None]
    valued = defaultdict(list)
    for v in e["VehicleValuationUpdated"]:
        worth = v["marketValue"] if v["marketValue"] is not None else v["estimatedValue"]
        valued[v["vehicleId"]].append((v.at("valuationDate"), v.id, worth))
    for at, vehicle, price in asked:
        before = [v for v in valued[vehicle] if v[0] <= at]
        if vehicle is not None and before:
            of_value = ratio(price, max(before)[2])
            facts.append((at, "deal", of_value if of_value is not None and of_value >= 0.4 else None))
    for at, of in by_day(facts).items():
        deals = [d for d in of["deal"] if d is not None]
        share = lambda low, high: ratio(sum(low < d <= high for d in deals), len(deals))
        first = [price for _, price, before in of["set"] if before is None]
        changes = [price - before for _, price, before in of["set"] if before is not None and before != price]
        known = [(prices[s["listingId"]][0], s["finalPrice"]) for s in of["sold"] if prices[s["listingId"]]]
        asked = sum(a for a, _ in known)
        yield at, dict(average_list_price=mean(first), average_sale_price=mean([s["finalPrice"] for s in of["sold"]]),
                       average_discount=ratio(asked - sum(p for _, p in known), asked), price_changes=len(changes),
                       price_cuts=sum(c < 0 for c in changes),
                       changes_per_listing=ratio(len(changes), len({listing for listing, _, _ in of["set"]})),
                       deals_rated=len(deals), great_deals=share(0, 0.9), good_deals=share(0.9, 0.96),
                       fair_deals=share(0.96, 1.05), high_prices=share(1.05, 1.15), overpriced=share(1.15, float("inf")))


def financing(e):
    # Two contexts have an event of this name; a loan application's is the lender's.
    approved = [a for a in e["FinancingApproved"] + e["financing.FinancingApproved"] if a["applicationId"]]
    sent = {}
    for s in e["FinancingApplicationSubmitted"]:
        sent[s["applicationId"]] = min(sent.get(s["applicationId"], s.at("submittedAt")), s.at("submittedAt"))
    facts = [(s.at("submittedAt"), "sent", s) for s in e["FinancingApplicationSubmitted"]]
    facts += [(a.at("approvedAt"), "approved", (a, a.at("approvedAt"))) for a in approved]
    facts += [(d.at("deniedAt"), "denied", (d, d.at("deniedAt"))) for d in e["FinancingDenied"]]
    for at, of in by_day(facts).items():
        decided = of["approved"] + of["denied"]
        hours = [(when - sent[d["applicationId"]]) / HOUR for d, when in decided if d["applicationId"] in sent]
        known = lambda field: [a[field] for a, _ in of["approved"] if a[field] is not None]
        yield at, dict(applications=len(of["sent"]), approvals=len(of["approved"]), denials=len(of["denied"]),
                       approval_rate=ratio(len(of["approved"]), len(decided)), average_hours=mean(hours),
                       average_rate=mean(known("interestRate")), average_term=mean(known("term")),
                       amount_approved=sum(known("approvedAmount")))


def trade_in(e):
    facts = []
    for name, kind, field in (("Requested", "requested", "requestedAt"), ("OfferGenerated", "offered", "generatedAt"),
                              ("OfferAccepted", "accepted", "acceptedAt"), ("OfferDeclined", "declined", "declinedAt"),
                              ("ValueAdjusted", "adjusted", None), ("Completed", "completed", "completedAt")):
        facts += [(t.at(field), kind, t) for t in e["TradeIn" + name]]
    for at, of in by_day(facts).items():
        counts = {kind: len(of[kind]) for kind in ("requested", "offered", "accepted", "declined", "adjusted", "completed")}
        values = [t["finalValue"] for t in of["completed"]]
        yield at, dict(counts, acceptance_rate=ratio(counts["accepted"], counts["accepted"] + counts["declined"]),
                       value_agreed=sum(values), average_value=mean(values))


def warranty_claims(e):
    facts = [(c.at("submittedAt"), "claim", c) for c in e["WarrantyClaimSubmitted"]]
    facts += [(c.at("approvedAt"), "approved", c) for c in e["WarrantyClaimApproved"]]
    facts += [(w.at("purchasedAt"), "extended", w) for w in e["ExtendedWarrantyPurchased"]]
    for at, of in by_day(facts).items():
        covered = [c["coverageAmount"] for c in of["approved"] if c["coverageAmount"] is not None]
        yield at, dict(claims=len(of["claim"]), approved=len(of["approved"]), approval_rate=ratio(len(of["approved"]), len(of["claim"])),
                       covered=sum(covered), average_covered=mean(covered), extended_sold=len(of["extended"]),
                       extended_revenue=sum(w["cost"] or 0 for w in of["extended"]))


def support(e):
    answered, solved, passed = {}, {}, set()
    for a in e["AdvisorResponseSent"]:
        answered[a["ticketId"]] = min(answered.get(a["ticketId"], a.at("sentAt")), a.at("sentAt"))
    for s in e["IssueResolved"]:
        solved[s["ticketId"]] = max(solved.get(s["ticketId"], s.at("resolvedAt")), s.at("resolvedAt"))
    passed = {p["ticketId"] for p in e["IssueEscalated"]}
    for at, of in by_day((t.at("createdAt"), "opened", t) for t in e["SupportTicketCreated"]).items():
        first = [(answered[t["ticketId"]] - t.at("createdAt")) / HOUR for t in of["opened"] if t["ticketId"] in answered]
        done = [(solved[t["ticketId"]] - t.at("createdAt")) / HOUR for t in of["opened"] if t["ticketId"] in solved]
        up = sum(t["ticketId"] in passed for t in of["opened"])
        yield at, dict(tickets=len(of["opened"]), first_response_hours=mean(first),
                       median_first_response_hours=statistics.median(first) if first else None, resolution_hours=mean(done),
                       resolved=len(done), escalated=up, escalation_rate=ratio(up, len(of["opened"])))


def marketing(e):
    facts = []
    for name, kind, field in (("EmailSent", "sent", "sentAt"), ("SMSSent", "sent", "sentAt"), ("PushNotificationSent", "sent", "sentAt"),
                              ("AdClicked", "clicked", "clickedAt"), ("LandingPageVisited", "visits", "visitedAt"),
                              ("NewsletterSubscribed", "subscribed", "subscribedAt"), ("NewsletterUnsubscribed", "unsubscribed", "unsubscribedAt")):
        facts += [(m.at(field), kind, m) for m in e[name]]
    for at, of in by_day(facts).items():
        yield at, dict({kind: len(of[kind]) for kind in ("sent", "clicked", "visits", "subscribed", "unsubscribed")},
                       clicks_per_message=ratio(len(of["clicked"]), len(of["sent"])))


def search_activity(e):
    facts = [(s.time, "search", s["userId"]) for s in e["UserSearched"]]
    facts += [(r.time, "page", r["resultCount"]) for r in e["SearchResultsDisplayed"]]
    facts += [(f.time, "filter", f) for f in e["FilterApplied"]]
    for at, of in by_day(facts).items():
        empty = sum(count == 0 for count in of["page"])
        yield at, dict(searches=len(of["search"]), searchers=len(set(of["search"])), result_pages=len(of["page"]), zero_results=empty,
                       zero_result_share=ratio(empty, len(of["page"])), filters_applied=len(of["filter"]))


def accounts(e):
    facts = [(a.at("createdAt"), "new", a["userId"]) for a in e["AccountCreated"]]
    facts += [(a.at("loggedInAt"), "login", a["userId"]) for a in e["LoginSuccessful"]]
    for at, of in by_day(facts).items():
        yield at, dict(new_accounts=len(set(of["new"])), active_accounts=len(set(of["login"])), logins=len(of["login"]))


def dealer_performance(e):
    facts = [(x.at("listedAt"), "listed", x["listingId"]) for x in e["VehicleListed"]]
    facts += [(x.time, "lead", x["leadId"]) for x in e["NewSalesLead"]]
    facts += [(x.at("soldAt"), "sold", x["listingId"]) for x in e["dealers.VehicleSold"]]
    facts += [(x.at("createdAt"), "contract", x) for x in e["SalesContractCreated"]]
    listed = defaultdict(list)
    for x in e["VehicleListed"]:
        listed[x["vehicleId"]].append(x.at("listedAt"))
    facts += [(r.at("submittedAt"), "stars", r["rating"]) for r in e["ReviewSubmitted"]
              if r["vehicleId"] is not None and any(at <= r.at("submittedAt") for at in listed[r["vehicleId"]])]
    for at, of in by_day(facts).items():
        leads, sold = len(set(of["lead"])), len(set(of["sold"]))
        yield at, dict(listings=len(set(of["listed"])), leads=leads, sold=sold, conversion=ratio(sold, leads),
                       contracts=len({c["contractId"] for c in of["contract"]}), revenue=sum(c["salePrice"] or 0 for c in of["contract"]),
                       commission=sum(c["commissionAmount"] or 0 for c in of["contract"]),
                       rating=mean(of["stars"]), reviews=len(of["stars"]))


def shop_orders(e):
    facts = [(o.at("createdAt"), "placed", o) for o in e["shop.OrderPlaced"]]
    facts += [(o.at("cancelledAt"), "cancelled", o["orderId"]) for o in e["shop.OrderCancelled"]]
    facts += [(r.at("refundedAt"), "refund", r) for r in e["PaymentRefunded"]]
    facts += [(s.at("triggeredAt"), "out", s) for s in e["OutOfStock"]]
    for at, of in by_day(facts).items():
        totals = [o["totalAmount"] for o in of["placed"]]
        yield at, dict(orders=len({o["orderId"] for o in of["placed"]}), revenue=sum(totals), average_order=mean(totals),
                       cancelled=len(set(of["cancelled"])), refunds=len(of["refund"]), refunded=sum(r["refundAmount"] for r in of["refund"]),
                       stock_outs=len(of["out"]))


def loyalty(e):
    facts = []
    for name, kind in (("PointsEarned", "earned"), ("PointsRedeemed", "redeemed"), ("PointsExpired", "expired"),
                       ("CustomerEnrolled", "enrolled"), ("TierUpgraded", "upgraded")):
        facts += [(x.time, kind, x) for x in e[name]]
    for at, of in by_day(facts).items():
        points = {kind: sum(x["points" + kind.title()] for x in of[kind]) for kind in ("earned", "redeemed", "expired")}
        yield at, dict(points, redemption_rate=ratio(points["redeemed"], points["earned"]), enrolled=len(of["enrolled"]), upgraded=len(of["upgraded"]))


def courses(e):
    facts = []
    for name, kind in (("courses.OrderPlaced", "orders"), ("OrderPaid", "paid"), ("OrderRefunded", "refunds"),
                       ("courses.OrderCancelled", "cancelled"), ("CourseCompleted", "completions")):
        facts += [(x.time, kind, x) for x in e[name]]
    for at, of in by_day(facts).items():
        yield at, dict({kind: len(of[kind]) for kind in ("orders", "paid", "refunds", "cancelled", "completions")},
                       revenue=sum(o["totalAmount"] for o in of["orders"]), refund_rate=ratio(len(of["refunds"]), len(of["paid"])))


KPIS = [sales_volume, offer_volume, production_rate, customer_satisfaction, inventory, market_share, days_to_sell, gross_margin,
        inventory_turnover, funnel, return_rate, delivery_performance, reconditioning, acquisition, pricing, financing, trade_in,
        warranty_claims, support, marketing, search_activity, accounts, dealer_performance, shop_orders, loyalty, courses]

if __name__ == "__main__":
    events = read(sys.argv[1])
    json.dump({kpi.__name__: dict(kpi(events)) for kpi in KPIS}, sys.stdout)
