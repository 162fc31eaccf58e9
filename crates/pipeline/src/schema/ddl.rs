//! The schema's SQL form: `month INT NOT NULL CHECK (month BETWEEN 1 AND 12), carrier TEXT, …`.
//!
//! What a column may carry is what Forebay keeps: a type, NULL or NOT NULL, a constant DEFAULT and
//! CHECKs. Anything else is refused at its position rather than silently dropped.

use datafusion::sql::sqlparser::ast::{
    DataType, ExactNumberInfo, Expr as SqlExpr, Spanned, TimezoneInfo,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Location, Token};

use super::constant;
use super::{Check, Column, Constant, Schema, Type};
use crate::record::is_own_column;
use crate::sql::scope::Scope;
use crate::sql::{SqlError, did_you_mean, end_of, offset_of, parser};

/// Names of types, for people.
const TYPES: &str =
    "BOOLEAN, SMALLINT, INT, BIGINT, REAL, DOUBLE, DECIMAL(p,s), TEXT, DATE, TIMESTAMP, JSON";

/// The most columns of a stream.
const COLUMNS: usize = 4096;

/// Words that begin a constraint, not a column, and so are quoted as names.
const CONSTRAINTS: [&str; 9] =
    ["CHECK", "CONSTRAINT", "PRIMARY", "FOREIGN", "UNIQUE", "EXCLUDE", "LIKE", "INDEX", "FULLTEXT"];

impl Schema {
    /// Reads a schema from its column list, as it stands between the parentheses of CREATE TABLE.
    ///
    /// # Errors
    /// The first fault with its position: syntax, an unknown type or column, a duplicate or reserved
    /// name, a DEFAULT that does not fit its type, a CHECK that is not a condition on one row, or a
    /// clause that Forebay does not keep.
    pub fn parse(ddl: &str) -> Result<Schema, SqlError> {
        let mut reader = Reader {
            text: ddl,
            parser: parser(ddl)?,
            schema: Schema::default(),
            conditions: Vec::new(),
        };
        reader.read()?;
        super::check::judge(&reader.schema, &reader.conditions)?;
        Ok(reader.schema)
    }

    /// The column list that [`Schema::parse`] reads back to this schema.
    pub fn to_ddl(&self) -> String {
        let mut parts: Vec<String> = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            let mut part = format!("{} {}", quoted(&column.name), column.ty.sql());
            if !column.nullable {
                part.push_str(" NOT NULL");
            }
            if let Some(default) = &column.default {
                part.push_str(" DEFAULT ");
                part.push_str(&constant::to_sql(default, column.ty));
            }
            let own = |check: &&Check| check.column.as_deref() == Some(column.name.as_str());
            for check in self.checks.iter().filter(own) {
                part.push_str(&format!(" CHECK ({})", check.sql));
            }
            parts.push(part);
        }
        let of_table = |check: &&Check| check.column.is_none();
        parts.extend(
            self.checks.iter().filter(of_table).map(|check| format!("CHECK ({})", check.sql)),
        );
        parts.join(", ")
    }
}

impl Type {
    /// The type as the DDL writes it.
    pub fn sql(self) -> String {
        match self {
            Type::Boolean => "BOOLEAN".to_owned(),
            Type::SmallInt => "SMALLINT".to_owned(),
            Type::Int => "INT".to_owned(),
            Type::BigInt => "BIGINT".to_owned(),
            Type::Real => "REAL".to_owned(),
            Type::Double => "DOUBLE".to_owned(),
            Type::Decimal { precision, scale } => format!("DECIMAL({precision},{scale})"),
            Type::Text => "TEXT".to_owned(),
            Type::Date => "DATE".to_owned(),
            Type::Timestamp => "TIMESTAMP".to_owned(),
            Type::Json => "JSON".to_owned(),
        }
    }
}

/// A name as SQL writes it: quoted where it must be.
pub(crate) fn quoted(name: &str) -> String {
    let mut characters = name.chars();
    let simple = characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|rest| rest.is_ascii_alphanumeric() || rest == '_');
    if simple && !CONSTRAINTS.contains(&name.to_uppercase().as_str()) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

/// A CHECK as parsed, with the index of its entry in [`Schema::checks`].
pub(super) type Condition = (usize, SqlExpr);

struct Reader<'a> {
    text: &'a str,
    parser: Parser<'static>,
    schema: Schema,
    conditions: Vec<Condition>,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), SqlError> {
        loop {
            if self.at_end() {
                let message = "expected a column: its name and its type, as in `carrier TEXT`";
                return Err(self.here(message));
            }
            if !self.table_constraint()? {
                self.column()?;
            }
            if self.at_end() {
                break;
            }
            if !self.parser.consume_token(&Token::Comma) {
                return Err(self.here(format!(
                    "expected `,` or the end, found `{}`",
                    self.parser.peek_token_ref().token
                )));
            }
        }
        if self.schema.columns.is_empty() {
            return Err(self.here("a schema needs at least one column"));
        }
        Ok(())
    }

    fn at_end(&self) -> bool {
        self.parser.peek_token_ref().token == Token::EOF
    }

    /// Where the next token begins.
    fn location(&self) -> Location {
        let location = self.parser.peek_token_ref().span.start;
        if location.line == 0 { end_of(self.text) } else { location }
    }

    fn here(&self, message: impl Into<String>) -> SqlError {
        SqlError::at(self.location(), message)
    }

    fn next_is(&self, token: &Token) -> bool {
        self.parser.peek_nth_token_ref(1).token == *token
    }

    /// Reads a CHECK of the whole row; refuses other constraints of a table. False where a column
    /// begins: the words that begin a constraint are also good names for a column.
    fn table_constraint(&mut self) -> Result<bool, SqlError> {
        let word = match &self.parser.peek_token_ref().token {
            Token::Word(word) if word.quote_style.is_none() => word.keyword,
            _ => return Ok(false),
        };
        let next = match &self.parser.peek_nth_token_ref(1).token {
            Token::Word(word) => word.keyword,
            _ => Keyword::NoKeyword,
        };
        match (word, next) {
            (Keyword::CHECK, _) if self.next_is(&Token::LParen) => {
                self.parser.advance_token();
                self.check(None)?;
                Ok(true)
            }
            (Keyword::CONSTRAINT, _)
                if matches!(
                    self.parser.peek_nth_token_ref(2).token,
                    Token::Word(ref word) if word.keyword == Keyword::CHECK
                ) =>
            {
                self.parser.advance_token();
                self.parser.advance_token();
                self.parser.advance_token();
                self.check(None)?;
                Ok(true)
            }
            (Keyword::PRIMARY | Keyword::FOREIGN, Keyword::KEY)
            | (Keyword::UNIQUE | Keyword::INDEX | Keyword::EXCLUDE, Keyword::NoKeyword)
                if word == Keyword::PRIMARY
                    || word == Keyword::FOREIGN
                    || self.next_is(&Token::LParen) =>
            {
                Err(self.unsupported())
            }
            _ => Ok(false),
        }
    }

    fn unsupported(&self) -> SqlError {
        let word = self.parser.peek_token_ref().token.to_string();
        self.here(format!(
            "`{word}` is not supported: after its type a column takes NOT NULL, NULL, DEFAULT with a \
             constant and CHECK (condition); a table takes CHECK (condition)"
        ))
    }

    fn column(&mut self) -> Result<(), SqlError> {
        let at = self.location();
        let name = self.name(at)?;
        let ty = self.column_type(&name)?;
        let mut column = Column { name, ty, nullable: true, default: None };
        let mut null_seen = None;
        let mut default_seen = false;
        let mut default_at = at;
        let index = self.schema.columns.len();
        self.schema.columns.push(column.clone());
        loop {
            let here = self.location();
            if self.parser.parse_keywords(&[Keyword::NOT, Keyword::NULL]) {
                self.once(&mut null_seen, false, here)?;
                column.nullable = false;
            } else if self.parser.parse_keyword(Keyword::NULL) {
                self.once(&mut null_seen, true, here)?;
            } else if self.parser.parse_keyword(Keyword::DEFAULT) {
                if std::mem::replace(&mut default_seen, true) {
                    return Err(SqlError::at(here, "the column has two DEFAULTs"));
                }
                default_at = self.location();
                column.default = self.default(ty)?;
            } else if self.parser.parse_keyword(Keyword::CHECK) {
                self.check(Some(&column.name))?;
            } else if self.parser.parse_keyword(Keyword::CONSTRAINT) {
                self.identifier("the constraint's name")?;
                if !self.parser.parse_keyword(Keyword::CHECK) {
                    return Err(self.unsupported());
                }
                self.check(Some(&column.name))?;
            } else if self.at_end() || self.parser.peek_token_ref().token == Token::Comma {
                break;
            } else {
                return Err(self.unsupported());
            }
        }
        if default_seen && column.default.is_none() && !column.nullable {
            return Err(SqlError::at(default_at, "DEFAULT NULL in a NOT NULL column"));
        }
        if let Some(place) = self.schema.columns.get_mut(index) {
            *place = column;
        }
        Ok(())
    }

    fn once(&self, seen: &mut Option<bool>, null: bool, at: Location) -> Result<(), SqlError> {
        match seen.replace(null) {
            Some(before) if before != null => {
                Err(SqlError::at(at, "the column is declared both NULL and NOT NULL"))
            }
            _ => Ok(()),
        }
    }

    fn identifier(&mut self, what: &str) -> Result<String, SqlError> {
        let at = self.location();
        match self.parser.next_token().token {
            Token::Word(word) => Ok(word.value),
            Token::EOF => Err(SqlError::at(at, format!("expected {what}, but the text ends here"))),
            token => Err(SqlError::at(at, format!("expected {what}, found `{token}`"))),
        }
    }

    fn name(&mut self, at: Location) -> Result<String, SqlError> {
        let name = self.identifier("a column's name")?;
        let fault = if name.is_empty() {
            Some("a column's name is empty".to_owned())
        } else if is_own_column(&name) {
            Some(format!("`{name}` is a column that Forebay fills itself; choose another name"))
        } else if self.schema.column(&name).is_some() {
            Some(format!("column `{name}` is declared twice"))
        } else if self.schema.columns.len() >= COLUMNS {
            Some(format!("more than {} columns", COLUMNS))
        } else {
            None
        };
        fault.map_or(Ok(name), |message| Err(SqlError::at(at, message)))
    }

    fn column_type(&mut self, name: &str) -> Result<Type, SqlError> {
        let at = self.location();
        if self.at_end() || self.parser.peek_token_ref().token == Token::Comma {
            return Err(SqlError::at(
                at,
                format!("column `{name}` has no type; the types are {TYPES}"),
            ));
        }
        let parsed = self
            .parser
            .parse_data_type()
            .map_err(|error| SqlError::from_parser(&error, self.text))?;
        resolve(&parsed, name).map_err(|message| SqlError::at(at, message))
    }

    fn default(&mut self, ty: Type) -> Result<Option<Constant>, SqlError> {
        let at = self.location();
        let expr =
            self.parser.parse_prefix().map_err(|error| SqlError::from_parser(&error, self.text))?;
        constant::from_sql(&expr, ty).map_err(|message| SqlError::at(at, message))
    }

    /// Reads `(condition)`.
    fn check(&mut self, column: Option<&str>) -> Result<(), SqlError> {
        let text = self.text;
        let fail = |error| SqlError::from_parser(&error, text);
        self.parser.expect_token(&Token::LParen).map_err(fail)?;
        let start = self.location();
        let expr = self.parser.parse_expr().map_err(fail)?;
        let end = self.location();
        self.parser.expect_token(&Token::RParen).map_err(fail)?;
        let written = self
            .text
            .get(offset_of(self.text, start)..offset_of(self.text, end))
            .unwrap_or_default();
        // A comment in it would swallow what `to_ddl` writes after it.
        let sql = if written.contains("--") || written.contains("/*") {
            expr.to_string()
        } else {
            written.trim().to_owned()
        };
        self.conditions.push((self.schema.checks.len(), expr));
        self.schema.checks.push(Check { column: column.map(str::to_owned), sql });
        Ok(())
    }
}

/// Parses a CHECK's condition from its own text. Positions are those of that text.
pub(super) fn condition(sql: &str) -> Result<SqlExpr, SqlError> {
    let mut parser = parser(sql)?;
    let expr = parser.parse_expr().map_err(|error| SqlError::from_parser(&error, sql))?;
    let rest = parser.peek_token_ref();
    if rest.token != Token::EOF {
        return Err(SqlError::at(
            rest.span.start,
            format!("expected the end of the condition, found `{}`", rest.token),
        ));
    }
    Ok(expr)
}

/// The scope of a schema's CHECKs.
pub(super) fn scope(schema: &Schema) -> Result<Scope, SqlError> {
    Scope::new(schema.arrow(), None, "CHECK")
}

/// Where an expression begins.
pub(super) fn start_of(expr: &SqlExpr) -> Location {
    expr.span().start
}

fn resolve(parsed: &DataType, name: &str) -> Result<Type, String> {
    Ok(match parsed {
        DataType::Bool | DataType::Boolean => Type::Boolean,
        DataType::SmallInt(None) | DataType::Int2(None) | DataType::Int16 => Type::SmallInt,
        DataType::Int(None)
        | DataType::Integer(None)
        | DataType::Int4(None)
        | DataType::Int32
        | DataType::MediumInt(None) => Type::Int,
        DataType::BigInt(None) | DataType::Int8(None) | DataType::Int64 => Type::BigInt,
        DataType::Real | DataType::Float4 | DataType::Float32 => Type::Real,
        DataType::Float(ExactNumberInfo::Precision(1..=24)) => Type::Real,
        DataType::Float(ExactNumberInfo::None | ExactNumberInfo::Precision(25..=53))
        | DataType::Double(ExactNumberInfo::None)
        | DataType::DoublePrecision
        | DataType::Float8
        | DataType::Float64 => Type::Double,
        DataType::Decimal(info) | DataType::Numeric(info) | DataType::Dec(info) => decimal(*info)?,
        DataType::Text
        | DataType::TinyText
        | DataType::MediumText
        | DataType::LongText
        | DataType::String(None)
        | DataType::Varchar(None)
        | DataType::CharacterVarying(None)
        | DataType::CharVarying(None)
        | DataType::Nvarchar(None)
        | DataType::Clob(None) => Type::Text,
        DataType::Date | DataType::Date32 => Type::Date,
        DataType::Timestamp(None | Some(6), _)
        | DataType::TimestampNtz(None | Some(6))
        | DataType::Datetime(None | Some(6)) => Type::Timestamp,
        DataType::JSON | DataType::JSONB => Type::Json,
        other => return Err(unknown_type(other, name)),
    })
}

fn decimal(info: ExactNumberInfo) -> Result<Type, String> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => {
            return Err("DECIMAL needs its digits: DECIMAL(18,2) has 18, two of them after the \
                        point"
                .to_owned());
        }
        ExactNumberInfo::Precision(precision) => (precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
    };
    let small = u8::try_from(precision).ok().filter(|precision| (1..=38).contains(precision));
    let Some(precision) = small else {
        return Err(format!("DECIMAL holds 1 to 38 digits, not {precision}"));
    };
    match i8::try_from(scale) {
        Ok(scale) if scale >= 0 && scale.unsigned_abs() <= precision => {
            Ok(Type::Decimal { precision, scale })
        }
        _ => Err(format!("DECIMAL({precision},{scale}): the scale is from 0 to {precision}")),
    }
}

fn unknown_type(parsed: &DataType, name: &str) -> String {
    let advice = match parsed {
        DataType::Varchar(Some(length))
        | DataType::Nvarchar(Some(length))
        | DataType::CharacterVarying(Some(length))
        | DataType::CharVarying(Some(length)) => {
            format!("write TEXT CHECK (length({}) <= {length})", quoted(name))
        }
        DataType::Char(_) | DataType::Character(_) | DataType::Uuid | DataType::Enum(..) => {
            "write TEXT, with a CHECK where its form matters".to_owned()
        }
        DataType::TinyInt(_) => "the smallest integer is SMALLINT".to_owned(),
        DataType::Timestamp(Some(_), TimezoneInfo::None | TimezoneInfo::WithoutTimeZone)
        | DataType::Timestamp(Some(_), _)
        | DataType::Datetime(Some(_)) => "a TIMESTAMP has microseconds".to_owned(),
        DataType::Array(_) | DataType::Struct(..) | DataType::Map(..) => {
            "write JSON for nested values".to_owned()
        }
        other => {
            let written = other.to_string().to_uppercase();
            let word = written.split(['(', ' ']).next().unwrap_or_default();
            let names = TYPES.split(", ").map(|name| name.split('(').next().unwrap_or(name));
            format!("the types are {TYPES}{}", did_you_mean(word, names))
        }
    };
    format!("unknown type `{parsed}`: {advice}")
}
