//! Illustrations of cars: drawings by body style, colour and angle, for listings of a generated market.
//!
//! `GET /illustrations/suv-blue-front.svg`. Each says on its face that it is no photo.

use std::fmt::Write;

use axum::{
    extract::Path,
    http::header,
    response::{IntoResponse, Response},
};

use super::{ASSETS_FOR, drawing};
use crate::problem::Problem;

/// Where illustrations are, beside photos elsewhere on the web.
pub(crate) const FOLDER: &str = "/illustrations/";

/// From where a car is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Angle {
    Side,
    Front,
    Rear,
    Interior,
}

impl Angle {
    const ALL: [(&'static str, Self); 4] =
        [("side", Self::Side), ("front", Self::Front), ("rear", Self::Rear), ("interior", Self::Interior)];
}

/// How a body looks from the front and the rear, in the picture's units.
struct Shape {
    /// Of the roof, from the top of the picture.
    roof: u32,
    /// Of the hood or the trunk.
    shoulder: u32,
    /// Half of the roof's and of the body's width.
    half_roof: u32,
    half_body: u32,
}

impl Shape {
    fn of(body: &str) -> Self {
        let is = |kinds: &[&str]| kinds.iter().any(|kind| body.contains(kind));
        let (roof, shoulder, half_roof, half_body) = match body {
            _ if is(&["van", "mpv", "people"]) => (34, 92, 68, 84),
            _ if is(&["truck", "pickup", "ute"]) => (44, 90, 58, 88),
            _ if is(&["suv", "crossover", "4x4"]) => (46, 92, 60, 84),
            _ if is(&["coupe", "convertible", "cabriolet", "roadster", "sport"]) => (74, 106, 48, 82),
            _ if is(&["hatch", "compact"]) => (58, 98, 54, 76),
            _ if is(&["wagon", "estate"]) => (60, 98, 56, 80),
            _ => (62, 100, 52, 80),
        };
        Self { roof, shoulder, half_roof, half_body }
    }
}

/// The picture that an address names: `<body>-<colour>-<angle>.svg`.
pub(crate) async fn illustration(Path(name): Path<String>) -> Response {
    match picture(&name) {
        Some(svg) => ([(header::CONTENT_TYPE, "image/svg+xml"), (header::CACHE_CONTROL, ASSETS_FOR)], svg).into_response(),
        None => Problem::not_found(
            "An illustration is named <body>-<colour>-<angle>.svg, such as suv-blue-front.svg; the angle is side, front, \
             rear or interior.",
        )
        .into_response(),
    }
}

fn picture(name: &str) -> Option<String> {
    let mut parts = name.strip_suffix(".svg")?.rsplitn(3, '-');
    let (angle, color, body) = (parts.next()?, parts.next()?, parts.next()?);
    let (_, angle) = Angle::ALL.into_iter().find(|(name, _)| *name == angle)?;
    let (body, paint) = (body.to_lowercase(), drawing::paint(color));
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 320 200\" width=\"640\" height=\"400\">\
         <rect width=\"320\" height=\"200\" fill=\"#dfe5ec\"/>",
    );
    match angle {
        Angle::Side => {
            svg += GROUND;
            svg += &drawing::side(&body, paint);
        }
        Angle::Front | Angle::Rear => {
            svg += GROUND;
            end(&mut svg, &Shape::of(&body), paint, angle == Angle::Front);
        }
        Angle::Interior => interior(&mut svg, paint),
    }
    svg += "<text x=\"312\" y=\"192\" text-anchor=\"end\" font-family=\"sans-serif\" font-size=\"11\" \
            fill=\"#4a5561\">Illustration</text></svg>";
    Some(svg)
}

const GROUND: &str = "<rect y=\"148\" width=\"320\" height=\"52\" fill=\"#c3ccd6\"/><ellipse cx=\"160\" cy=\"160\" \
                      rx=\"120\" ry=\"8\" fill=\"#8894a3\" opacity=\".5\"/>";

/// A car from the front or the rear.
fn end(svg: &mut String, shape: &Shape, paint: &str, is_front: bool) {
    let Shape { roof, shoulder, half_roof, half_body } = *shape;
    let (left, right) = (160 - half_body, 160 + half_body);
    let (roof_left, roof_right) = (160 - half_roof, 160 + half_roof);
    let (glass, lamp, lamps) = if is_front { (7, "#fff3c4", 30) } else { (11, "#d64541", 20) };
    let waist = shoulder + 16;
    // Tyres, the body, the window, the lamps; then what is between the lamps.
    let _ = write!(
        svg,
        "<g fill=\"#22282f\"><rect x=\"{}\" y=\"126\" width=\"26\" height=\"38\" rx=\"6\"/><rect x=\"{}\" y=\"126\" \
         width=\"26\" height=\"38\" rx=\"6\"/></g>\
         <path d=\"M{roof_left} {roof}H{roof_right}L{} {shoulder}Q{right} {shoulder} {right} {waist}V140Q{right} 148 {} \
         148H{}Q{left} 148 {left} 140V{waist}Q{left} {shoulder} {} {shoulder}Z\" fill=\"{paint}\" stroke=\"#2b333d\" \
         stroke-width=\"2\" stroke-linejoin=\"round\"/>\
         <path d=\"M{} {}H{}L{} {}H{}Z\" fill=\"#9fb6c9\" stroke=\"#2b333d\" stroke-width=\"1.5\"/>\
         <rect x=\"{}\" y=\"{}\" width=\"{lamps}\" height=\"12\" rx=\"5\" fill=\"{lamp}\" stroke=\"#2b333d\"/>\
         <rect x=\"{}\" y=\"{}\" width=\"{lamps}\" height=\"12\" rx=\"5\" fill=\"{lamp}\" stroke=\"#2b333d\"/>",
        left + 4,
        right - 30,
        right - 12,
        right - 8,
        left + 8,
        left + 12,
        roof_left + glass,
        roof + 6,
        roof_right - glass,
        right - 18,
        shoulder - 2,
        left + 18,
        left + 6,
        waist,
        right - 6 - lamps,
        waist,
    );
    let _ = if is_front {
        write!(
            svg,
            "<rect x=\"128\" y=\"{}\" width=\"64\" height=\"14\" rx=\"4\" fill=\"#2b333d\"/><rect x=\"112\" y=\"136\" \
             width=\"96\" height=\"6\" rx=\"3\" fill=\"#2b333d\" opacity=\".6\"/>",
            waist
        )
    } else {
        write!(
            svg,
            "<rect x=\"136\" y=\"{}\" width=\"48\" height=\"14\" rx=\"2\" fill=\"#f7f8f9\" stroke=\"#2b333d\"/><path \
             d=\"M{} 134H{}\" stroke=\"#2b333d\" opacity=\".5\"/>",
            waist + 4,
            left + 8,
            right - 8
        )
    };
}

/// The seats and the dashboard, with the car's colour on the doors.
fn interior(svg: &mut String, paint: &str) {
    let _ = write!(
        svg,
        "<path d=\"M20 40Q160 8 300 40L286 92H34Z\" fill=\"#9fb6c9\" stroke=\"#2b333d\" stroke-width=\"2\"/>\
         <path d=\"M0 60L34 92V200H0ZM320 60L286 92V200H320Z\" fill=\"{paint}\" stroke=\"#2b333d\" stroke-width=\"2\"/>\
         <path d=\"M28 92H292Q300 118 292 130H28Q20 118 28 92Z\" fill=\"#3a424c\"/>\
         <rect x=\"142\" y=\"98\" width=\"46\" height=\"28\" rx=\"3\" fill=\"#1d2329\"/>\
         <circle cx=\"92\" cy=\"124\" r=\"34\" fill=\"none\" stroke=\"#14181c\" stroke-width=\"8\"/>\
         <circle cx=\"92\" cy=\"124\" r=\"9\" fill=\"#14181c\"/><path d=\"M60 124H124M92 124V156\" stroke=\"#14181c\" \
         stroke-width=\"6\"/>\
         <path d=\"M48 200Q44 154 92 154T136 200ZM184 200Q180 154 228 154T272 200Z\" fill=\"#5b6570\" stroke=\"#2b333d\" \
         stroke-width=\"2\"/>"
    );
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::picture;

    #[test]
    fn pictures_differ_by_body_colour_and_angle_and_say_that_they_are_drawn() {
        let mut seen = HashSet::new();
        for body in ["suv", "sedan", "truck", "van", "hatchback", "coupe", "wagon"] {
            for color in ["blue", "red"] {
                for angle in ["side", "front", "rear"] {
                    let svg = picture(&format!("{body}-{color}-{angle}.svg")).unwrap();
                    assert!(svg.contains(">Illustration</text>"), "{svg}");
                    assert!(seen.insert(svg), "{body} {color} {angle} looks like another");
                }
            }
        }
        assert_ne!(picture("suv-blue-interior.svg"), picture("suv-red-interior.svg"));
        for unknown in ["suv-blue-top.svg", "suv-blue-front.png", "blue-front.svg", "", "<script>-x-y.svg"] {
            assert_eq!(picture(unknown), None, "{unknown}");
        }
        // A body and a colour that nobody knows are drawn as a car, and nothing of the address is in the picture.
        assert!(!picture("<b>-\"x-side.svg").unwrap().contains("<b>"));
    }
}
