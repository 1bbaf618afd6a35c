//! How a listing is laid out in the index.

use tantivy::{
    Index,
    schema::{FAST, Field, INDEXED, IndexRecordOption, STORED, STRING, Schema, TextFieldIndexing, TextOptions},
    tokenizer::{AsciiFoldingFilter, LowerCaser, RemoveLongFilter, SimpleTokenizer, TextAnalyzer},
};

use crate::query::Facet;

/// Words in lower case, without accents.
const FOLDED: &str = "folded";
/// Longer "words" are not words.
const LONGEST_WORD: usize = 60;

/// A text field, and how much a match in it counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TextField {
    pub(crate) field: Field,
    pub(crate) boost: f32,
}

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
    pub(crate) facets: Vec<(Facet, Field)>,
    pub(crate) texts: Vec<TextField>,
}

/// Text fields by name, with their boosts.
const TEXTS: [(&str, f32); 7] = [
    ("title_text", 4.0),
    ("make_text", 4.0),
    ("model_text", 4.0),
    ("trim_text", 2.0),
    ("features_text", 1.0),
    ("dealer_text", 1.0),
    ("description_text", 0.5),
];

impl Fields {
    pub(crate) fn new() -> (Schema, Self) {
        let mut schema = Schema::builder();
        let text = TextOptions::default().set_indexing_options(
            TextFieldIndexing::default().set_tokenizer(FOLDED).set_index_option(IndexRecordOption::WithFreqs),
        );
        let facet = TextOptions::default().set_fast("raw");
        let facets = Facet::STORED
            .iter()
            .map(|&facet_kind| (facet_kind, schema.add_text_field(facet_kind.name(), facet.clone())));
        let facets = facets.collect();
        let texts =
            TEXTS.iter().map(|&(name, boost)| TextField { field: schema.add_text_field(name, text.clone()), boost });
        let texts = texts.collect();
        let fields = Self {
            key: schema.add_text_field("key", STRING),
            state: schema.add_bytes_field("state", STORED),
            listing: schema.add_bytes_field("listing", STORED),
            listing_id: schema.add_text_field("listing_id", facet),
            public: schema.add_u64_field("public", INDEXED),
            unavailable: schema.add_bool_field("unavailable", FAST),
            reserved_until: schema.add_i64_field("reserved_until", FAST),
            price_cents: schema.add_i64_field("price_cents", FAST),
            year: schema.add_i64_field("year", FAST),
            mileage: schema.add_i64_field("mileage", FAST),
            listed_at: schema.add_i64_field("listed_at", FAST),
            latitude: schema.add_f64_field("latitude", FAST),
            longitude: schema.add_f64_field("longitude", FAST),
            popularity: schema.add_f64_field("popularity", FAST),
            facets,
            texts,
        };
        (schema.build(), fields)
    }
}

/// The analyzer of text fields and of what people type.
pub(crate) fn folded() -> TextAnalyzer {
    TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(RemoveLongFilter::limit(LONGEST_WORD))
        .filter(LowerCaser)
        .filter(AsciiFoldingFilter)
        .build()
}

pub(crate) fn register_tokenizers(index: &Index) {
    index.tokenizers().register(FOLDED, folded());
}
