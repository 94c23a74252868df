// How results of the search are ranked: Sphinx's own scores, less what makes a page one for few readers.
// A match in a title has 15 points, one in the text 5.
"use strict";

const lessFor = [
  [/^docs\/adr\//, 12], // why it was built so
  [/^docs\/benchmark$/, 12],
  [/^(CHANGELOG|ARCHITECTURE|CONTRIBUTING)$/, 8],
  [/^(tests|benchmarks|helm)\//, 8],
  [/^docs\/(adapters|idp)\//, 2], // for one product each
  [/^docs\/threat-model$/, 2], // names nearly everything
];
const moreFor = [
  [/^docs\/(concepts|questions|reasons)$/, 3], // where most words are explained
];

var Scorer = {
  score: ([docname, , , , score]) =>
    score +
    moreFor.reduce((sum, [pages, points]) => sum + (pages.test(docname) ? points : 0), 0) -
    lessFor.reduce((sum, [pages, points]) => sum + (pages.test(docname) ? points : 0), 0),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
