//! How a listing is laid out in the index.

use tantivy::{
    TantivyDocument,
    schema::{FAST, Field, IndexRecordOption, STORED, Schema, TextFieldIndexing, TextOptions},
};

use crate::{listing::Listing, own_words::OwnWords, query::Facet};

/// The index's fields. An entity that is no listing has only `key` and `state`.
#[derive(Clone, Debug)]
pub struct Fields {
    /// The entity, `listing/…` or another kind: unique.
    pub(crate) key: Field,
    /// The folded facts of the entity, opaque here.
    pub(crate) state: Field,
    /// The [`crate::Listing`] as JSON.
    pub(crate) listing: Field,
    pub(crate) listing_id: Field,
    pub(crate) currency: Field,
    /// The position of the commit that wrote it.
    pub(crate) written: Field,
    pub(crate) public: Field,
    pub(crate) unavailable: Field,
    pub(crate) reserved_until: Field,
    pub(crate) price_cents: Field,
    pub(crate) year: Field,
    pub(crate) mileage: Field,
    pub(crate) listed_at: Field,
    pub(crate) latitude: Field,
    pub(crate) longitude: Field,
    pub(crate) popularity: Field,
    pub(crate) owner_count: Field,
    pub(crate) accident_free: Field,
    /// How much the price was lowered, in hundredths; absent when it was not.
    pub(crate) price_drop_cents: Field,
    pub(crate) featured_from: Field,
    pub(crate) featured_to: Field,
    pub(crate) facets: Vec<(Facet, Field)>,
    /// Each word that a listing is found by, and how it has it.
    pub(crate) words: Field,
}

impl Fields {
    pub(crate) fn new() -> (Schema, Self) {
        let mut schema = Schema::builder();
        // Each field with terms costs about a megabyte of work in every segment that is written: few have any.
        let indexing = TextFieldIndexing::default().set_tokenizer("raw");
        let terms = TextOptions::default()
            .set_indexing_options(indexing.set_index_option(IndexRecordOption::Basic).set_fieldnorms(false));
        let facet = TextOptions::default().set_fast("raw");
        let facets = Facet::STORED
            .iter()
            .map(|&facet_kind| (facet_kind, schema.add_text_field(facet_kind.name(), facet.clone())));
        let facets = facets.collect();
        let fields = Self {
            key: schema.add_text_field("key", terms.clone()),
            state: schema.add_bytes_field("state", STORED),
            listing: schema.add_bytes_field("listing", STORED),
            listing_id: schema.add_text_field("listing_id", facet.clone()),
            currency: schema.add_text_field("currency", facet.clone()),
            written: schema.add_u64_field("written", FAST),
            public: schema.add_u64_field("public", FAST),
            unavailable: schema.add_bool_field("unavailable", FAST),
            reserved_until: schema.add_i64_field("reserved_until", FAST),
            price_cents: schema.add_i64_field("price_cents", FAST),
            year: schema.add_i64_field("year", FAST),
            mileage: schema.add_i64_field("mileage", FAST),
            listed_at: schema.add_i64_field("listed_at", FAST),
            latitude: schema.add_f64_field("latitude", FAST),
            longitude: schema.add_f64_field("longitude", FAST),
            popularity: schema.add_f64_field("popularity", FAST),
            owner_count: schema.add_i64_field("owner_count", FAST),
            accident_free: schema.add_bool_field("accident_free", FAST),
            price_drop_cents: schema.add_i64_field("price_drop_cents", FAST),
            featured_from: schema.add_i64_field("featured_from", FAST),
            featured_to: schema.add_i64_field("featured_to", FAST),
            facets,
            words: schema.add_text_field("words", terms),
        };
        (schema.build(), fields)
    }

    /// What a listing is found by in words.
    pub(crate) fn add_words(&self, document: &mut TantivyDocument, listing: &Listing) {
        for term in OwnWords::of(listing).terms() {
            document.add_text(self.words, term);
        }
    }
}
