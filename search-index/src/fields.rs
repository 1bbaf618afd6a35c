//! How a listing is laid out in the index.

use std::borrow::Cow;

use tantivy::{
    TantivyDocument,
    schema::{FAST, Field, INDEXED, IndexRecordOption, STORED, STRING, Schema, TextFieldIndexing, TextOptions},
};

use crate::{
    listing::Listing,
    query::Facet,
    words::{FOLDED, STEMMED, joined},
};

/// A text field, and how much a match in it counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TextField {
    pub(crate) field: Field,
    pub(crate) boost: f32,
    /// It has names rather than sentences: a word that is being typed may begin one of its words.
    pub(crate) names: bool,
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
    pub(crate) texts: Vec<TextField>,
    /// The words of all texts without their endings.
    pub(crate) stems: TextField,
}

/// Text fields by name, with their boosts, and whether they have names. The attributes are what
/// facets say of a listing, so that it is found by those words as well.
const TEXTS: [(&str, f32, bool); 8] = [
    ("title_text", 4.0, true),
    ("make_text", 4.0, true),
    ("model_text", 4.0, true),
    ("trim_text", 2.0, true),
    ("features_text", 1.0, true),
    ("dealer_text", 1.0, true),
    ("attributes_text", 1.0, true),
    ("description_text", 0.5, false),
];

impl Fields {
    pub(crate) fn new() -> (Schema, Self) {
        let mut schema = Schema::builder();
        let words = |tokenizer: &str| {
            let indexing = TextFieldIndexing::default().set_tokenizer(tokenizer);
            TextOptions::default()
                .set_indexing_options(indexing.set_index_option(IndexRecordOption::Basic).set_fieldnorms(false))
        };
        let facet = TextOptions::default().set_fast("raw");
        let facets = Facet::STORED
            .iter()
            .map(|&facet_kind| (facet_kind, schema.add_text_field(facet_kind.name(), facet.clone())));
        let facets = facets.collect();
        let texts = TEXTS.iter().map(|&(name, boost, names)| TextField {
            field: schema.add_text_field(name, words(FOLDED)),
            boost,
            names,
        });
        let texts = texts.collect();
        let stems = TextField { field: schema.add_text_field("stems_text", words(STEMMED)), boost: 1.0, names: false };
        let fields = Self {
            key: schema.add_text_field("key", STRING),
            state: schema.add_bytes_field("state", STORED),
            listing: schema.add_bytes_field("listing", STORED),
            listing_id: schema.add_text_field("listing_id", facet.clone()),
            currency: schema.add_text_field("currency", facet.clone()),
            written: schema.add_u64_field("written", FAST),
            public: schema.add_u64_field("public", INDEXED | FAST),
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
            texts,
            stems,
        };
        (schema.build(), fields)
    }

    /// What a listing is found by in words.
    pub(crate) fn add_texts(&self, document: &mut TantivyDocument, listing: &Listing) {
        for ((text, joined), field) in texts(listing).into_iter().zip(&self.texts) {
            if let Some(text) = text {
                document.add_text(field.field, &text);
                document.add_text(self.stems.field, text);
            }
            if let Some(joined) = joined {
                document.add_text(field.field, joined);
            }
        }
    }
}

/// What a listing has in each of the [`TEXTS`], and how people also write it: F-150 as one word, and Land Rover too.
pub(crate) fn texts(listing: &Listing) -> [(Option<Cow<'_, str>>, Option<String>); TEXTS.len()] {
    let attributes = Facet::ATTRIBUTES.iter().flat_map(|facet| facet.values(listing));
    let attributes: Vec<String> = attributes.chain(listing.year.map(|year| year.to_string())).collect();
    let [title, make, model, trim, dealer, description] =
        [&listing.title, &listing.make, &listing.model, &listing.trim, &listing.dealer_name, &listing.description]
            .map(|text| text.as_deref().map(Cow::Borrowed));
    let made = |texts: &[String]| Some(Cow::Owned(texts.join(" ")));
    let [make_joined, model_joined, trim_joined] = [&make, &model, &trim].map(|name| joined(name.as_deref()?));
    [
        (title, None),
        (make, make_joined),
        (model, model_joined),
        (trim, trim_joined),
        (made(&listing.features), None),
        (dealer, None),
        (made(&attributes), None),
        (description, None),
    ]
}
