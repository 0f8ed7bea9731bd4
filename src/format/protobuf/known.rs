//! Files that registries and their clients know without being told, by what their messages have: names, types and numbers.
//! `google/protobuf/` is in the library.

/// Confluent's own.
const CONFLUENT: [(&str, &str); 3] = [
    ("confluent/meta.proto", include_str!("confluent/meta.proto")),
    ("confluent/type/decimal.proto", include_str!("confluent/type/decimal.proto")),
    ("confluent/type/variant.proto", include_str!("confluent/type/variant.proto")),
];

/// Google's common types: the file in `google/type/`, what it imports, and what is in it.
const TYPES: [(&str, &str, &str); 17] = [
    (
        "calendar_period",
        "",
        "enum CalendarPeriod { CALENDAR_PERIOD_UNSPECIFIED = 0; DAY = 1; WEEK = 2; FORTNIGHT = 3; MONTH = 4; QUARTER = 5; \
         HALF = 6; YEAR = 7; }",
    ),
    (
        "color",
        "wrappers",
        "message Color { float red = 1; float green = 2; float blue = 3; google.protobuf.FloatValue alpha = 4; }",
    ),
    ("date", "", "message Date { int32 year = 1; int32 month = 2; int32 day = 3; }"),
    (
        "datetime",
        "duration",
        "message DateTime { int32 year = 1; int32 month = 2; int32 day = 3; int32 hours = 4; int32 minutes = 5; \
         int32 seconds = 6; int32 nanos = 7; oneof time_offset { google.protobuf.Duration utc_offset = 8; \
         TimeZone time_zone = 9; } } message TimeZone { string id = 1; string version = 2; }",
    ),
    (
        "dayofweek",
        "",
        "enum DayOfWeek { DAY_OF_WEEK_UNSPECIFIED = 0; MONDAY = 1; TUESDAY = 2; WEDNESDAY = 3; THURSDAY = 4; FRIDAY = 5; \
         SATURDAY = 6; SUNDAY = 7; }",
    ),
    ("decimal", "", "message Decimal { string value = 1; }"),
    (
        "expr",
        "",
        "message Expr { string expression = 1; string title = 2; string description = 3; string location = 4; }",
    ),
    ("fraction", "", "message Fraction { int64 numerator = 1; int64 denominator = 2; }"),
    (
        "interval",
        "timestamp",
        "message Interval { google.protobuf.Timestamp start_time = 1; google.protobuf.Timestamp end_time = 2; }",
    ),
    ("latlng", "", "message LatLng { double latitude = 1; double longitude = 2; }"),
    ("localized_text", "", "message LocalizedText { string text = 1; string language_code = 2; }"),
    ("money", "", "message Money { string currency_code = 1; int64 units = 2; int32 nanos = 3; }"),
    (
        "month",
        "",
        "enum Month { MONTH_UNSPECIFIED = 0; JANUARY = 1; FEBRUARY = 2; MARCH = 3; APRIL = 4; MAY = 5; JUNE = 6; JULY = 7; \
         AUGUST = 8; SEPTEMBER = 9; OCTOBER = 10; NOVEMBER = 11; DECEMBER = 12; }",
    ),
    (
        "phone_number",
        "",
        "message PhoneNumber { message ShortCode { string region_code = 1; string number = 2; } oneof kind { \
         string e164_number = 1; ShortCode short_code = 2; } string extension = 3; }",
    ),
    (
        "postal_address",
        "",
        "message PostalAddress { int32 revision = 1; string region_code = 2; string language_code = 3; \
         string postal_code = 4; string sorting_code = 5; string administrative_area = 6; string locality = 7; \
         string sublocality = 8; repeated string address_lines = 9; repeated string recipients = 10; \
         string organization = 11; }",
    ),
    (
        "quaternion",
        "",
        "message Quaternion { double x = 1; double y = 2; double z = 3; double w = 4; }",
    ),
    (
        "timeofday",
        "",
        "message TimeOfDay { int32 hours = 1; int32 minutes = 2; int32 seconds = 3; int32 nanos = 4; }",
    ),
];

/// Their names and texts.
pub(super) fn files() -> Vec<(String, String)> {
    let types = TYPES.map(|(name, import, body)| {
        let import = match import {
            "" => String::new(),
            import => format!("import \"google/protobuf/{import}.proto\"; "),
        };
        let text = format!("syntax = \"proto3\"; package google.type; {import}{body}");
        (format!("google/type/{name}.proto"), text)
    });
    let confluent = CONFLUENT.map(|(name, text)| (name.to_owned(), text.to_owned()));
    confluent.into_iter().chain(types).collect()
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use crate::schema::Referred;

    /// What Confluent's clients know without references, known here without references.
    #[test]
    fn common_files_need_no_references() {
        let mut all = super::files();
        all.extend(
            [
                "any",
                "api",
                "descriptor",
                "duration",
                "empty",
                "field_mask",
                "source_context",
                "struct",
                "timestamp",
                "type",
                "wrappers",
            ]
            .map(|name| (format!("google/protobuf/{name}.proto"), String::new())),
        );
        for (name, _) in &all {
            let text =
                format!("syntax = \"proto3\"; import \"{name}\"; message M {{ int32 a = 1; }}");
            schema::of_text(&text, &[]).unwrap_or_else(|why| panic!("{name}: {why}"));
        }
        let text = all.iter().map(|(name, _)| format!("import \"{name}\"; ")).collect::<String>();
        let text = format!(
            "syntax = \"proto3\"; {text} message M {{ option (confluent.message_meta) = {{ doc: \"x\", rules: [{{ name: \"r\" }}] }}; \
             google.type.Money price = 1; google.type.Date day = 2; google.type.DayOfWeek week = 3; \
             google.type.PhoneNumber.ShortCode code = 4; google.type.DateTime at = 5; confluent.type.Decimal d = 6 [(confluent.field_meta) \
             = {{ params: [{{ key: \"precision\", value: \"10\" }}] }}]; }}"
        );
        let file = schema::of_text(&text, &[]).unwrap();
        let of = schema::at(&file, &[]).unwrap();
        let path = |path: &str| path.split('.').map(str::to_owned).collect::<Vec<_>>();
        for (at, is) in [
            ("price.units", true),
            ("price.cents", false),
            ("day.year", true),
            ("at.time_zone.id", true),
        ] {
            assert_eq!(schema::has(&of, &path(at)), is, "{at}");
        }
    }

    /// A file of that name that is registered comes first.
    #[test]
    fn a_file_that_is_registered_comes_first() {
        let own = Referred {
            name: "google/type/date.proto".to_owned(),
            schema: "syntax = \"proto3\"; package google.type; message Date { string text = 1; }"
                .to_owned(),
        };
        let text = "syntax = \"proto3\"; import \"google/type/date.proto\"; message M { google.type.Date d = 1; }";
        let file = schema::of_text(text, &[own]).unwrap();
        let of = schema::at(&file, &[]).unwrap();
        assert!(schema::has(&of, &["d".to_owned(), "text".to_owned()]));
    }
}
