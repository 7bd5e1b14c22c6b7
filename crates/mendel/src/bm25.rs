//! BM25, the baseline that needs no training (Robertson and Zaragoza 2009), by the `tantivy` crate: k1 1.2, b 0.75,
//! letters and digits lower-cased and stemmed as English.

use tantivy::collector::TopDocs;
use tantivy::columnar::Column;
use tantivy::indexer::NoMergePolicy;
use tantivy::query::{BooleanQuery, Occur, Query, TermQuery};
use tantivy::schema::{FAST, Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::{Index, IndexWriter, Searcher, TantivyDocument, TantivyError, Term};

/// tantivy's name for how texts become terms.
const ANALYZER: &str = "en_stem";
/// The field of a passage's number.
const NUMBER: &str = "number";
/// Memory that indexing takes before it writes to disk.
const WRITER_BYTES: usize = 64 << 20;

/// Why there is no index, or no answer from it.
#[derive(Debug, thiserror::Error)]
#[error("BM25 failed ({0}); its index needs room in the folder for temporary files, which TMPDIR names")]
pub struct Bm25Error(#[from] TantivyError);

/// An index that is being made, in a temporary folder.
pub struct Bm25Builder {
    index: Index,
    writer: IndexWriter,
    text: Field,
    number: Field,
    passages: u64,
}

/// An index of passages, numbered from 0 in the order in which they were added.
pub struct Bm25 {
    index: Index,
    searcher: Searcher,
    text: Field,
    /// For each segment of the index the numbers of its passages.
    numbers: Vec<Column<u64>>,
}

impl Bm25Builder {
    /// Without a passage.
    pub fn new() -> Result<Self, Bm25Error> {
        let indexing = TextFieldIndexing::default()
            .set_tokenizer(ANALYZER)
            .set_index_option(IndexRecordOption::WithFreqs)
            .set_fieldnorms(true);
        let mut schema = Schema::builder();
        let text = schema.add_text_field("text", TextOptions::default().set_indexing_options(indexing));
        let number = schema.add_u64_field(NUMBER, FAST);
        let index = Index::builder().schema(schema.build()).create_from_tempdir()?;
        let writer = index.writer_with_num_threads(1, WRITER_BYTES)?;
        // Nothing is merged behind our back: scores are over the whole index, however many segments it has.
        writer.set_merge_policy(Box::new(NoMergePolicy));
        Ok(Bm25Builder { index, writer, text, number, passages: 0 })
    }

    /// Adds the next passage.
    pub fn add(&mut self, passage: &str) -> Result<(), Bm25Error> {
        let mut document = TantivyDocument::default();
        document.add_text(self.text, passage);
        document.add_u64(self.number, self.passages);
        self.passages += 1;
        self.writer.add_document(document)?;
        Ok(())
    }

    /// The index, ready to be searched.
    pub fn finish(mut self) -> Result<Bm25, Bm25Error> {
        self.writer.commit()?;
        self.writer.wait_merging_threads()?;
        let searcher = self.index.reader()?.searcher();
        let numbers = searcher.segment_readers().iter().map(|segment| segment.fast_fields().u64(NUMBER));
        let numbers = numbers.collect::<Result<_, TantivyError>>()?;
        Ok(Bm25 { index: self.index, searcher, text: self.text, numbers })
    }
}

impl Bm25 {
    /// The `depth` best passages for a query and their scores, best first, and after them all that score as the last
    /// of them does: who cuts decides what comes first among equals. Here it is the one with the lower number.
    /// Passages that share no term with the query are not among them.
    pub fn search(&self, query: &str, depth: usize) -> Result<Vec<(usize, f32)>, Bm25Error> {
        let mut analyzer = self.index.tokenizer_for_field(self.text)?;
        let mut clauses: Vec<(Occur, Box<dyn Query>)> = Vec::new();
        // The query's own words, not tantivy's query language: a question mark asks nothing of the index.
        analyzer.token_stream(query).process(&mut |token| {
            let term = Term::from_field_text(self.text, &token.text);
            clauses.push((Occur::Should, Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs))));
        });
        if clauses.is_empty() || depth == 0 {
            return Ok(Vec::new());
        }
        let query = BooleanQuery::new(clauses);
        let mut limit = depth + 1;
        let found = loop {
            let found = self.searcher.search(&query, &TopDocs::with_limit(limit).order_by_score())?;
            let least = found.get(depth - 1).map(|(score, _)| *score);
            // tantivy cuts equals where it likes: enough are asked for to have them all.
            if found.len() < limit || found.last().map(|(score, _)| *score) < least {
                break found.into_iter().take_while(move |(score, _)| least.is_none_or(|least| *score >= least));
            }
            limit *= 2;
        };
        let numbered = found.filter_map(|(score, address)| {
            let number = self.numbers.get(address.segment_ord as usize)?.first(address.doc_id)?;
            Some((number as usize, score))
        });
        let mut numbered: Vec<(usize, f32)> = numbered.collect();
        numbered.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        Ok(numbered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(passages: &[&str]) -> Bm25 {
        let mut builder = Bm25Builder::new().unwrap();
        passages.iter().for_each(|passage| builder.add(passage).unwrap());
        builder.finish().unwrap()
    }

    #[test]
    fn scores_are_those_of_the_formula() {
        let passages = ["the mill of ash", "the tower of ash and the tower of elm", "a garden"];
        let found = index(&passages).search("Towers, ash?", 10).unwrap();
        // Lengths up to 39 are kept exactly: 4, 9 and 2 words.
        let (count, mean) = (3.0_f32, 5.0_f32);
        let idf = |containing: f32| (1.0 + (count - containing + 0.5) / (containing + 0.5)).ln();
        let weight = |tf: f32, length: f32| tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * length / mean));
        let expected =
            [(1, idf(1.0) * weight(2.0, 9.0) + idf(2.0) * weight(1.0, 9.0)), (0, idf(2.0) * weight(1.0, 4.0))];
        assert_eq!(found.len(), 2);
        for ((place, score), (expected_place, expected)) in found.into_iter().zip(expected) {
            assert_eq!(place, expected_place);
            assert!((score - expected).abs() < 1e-5, "{score} {expected}");
        }
    }

    #[test]
    fn what_a_query_language_would_take_for_commands_are_letters() {
        let index = index(&["what is c plus plus", "nothing of it"]);
        for query in ["what is: \"c++\"?", "(c AND", "-what +is", "text:c~2", "[c TO d]"] {
            assert_eq!(index.search(query, 5).unwrap()[0].0, 0, "{query}");
        }
        for query in ["", "?!", "unheard"] {
            assert_eq!(index.search(query, 5).unwrap(), []);
        }
    }

    #[test]
    fn equals_at_the_cut_are_all_found_in_the_order_of_their_numbers() {
        let mut passages = vec!["a tower of ash"; 50];
        passages[20] = "a tower, a tower";
        let found: Vec<usize> = index(&passages).search("tower", 10).unwrap().iter().map(|(place, _)| *place).collect();
        assert_eq!(found, [20].into_iter().chain((0..50).filter(|&place| place != 20)).collect::<Vec<_>>());
        assert_eq!(index(&passages).search("tower", 1).unwrap().len(), 1);
    }

    #[test]
    fn passages_keep_their_numbers_however_many_there_are() {
        let texts: Vec<String> = (0..5000).map(|i| format!("passage number{i} of many")).collect();
        let index = index(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        for i in [0, 1, 2500, 4999] {
            assert_eq!(index.search(&format!("number{i}"), 3).unwrap()[0].0, i);
        }
    }
}
