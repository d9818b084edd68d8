// The search passes over words of digits alone; here close codes, statuses and ports are words.
(function () {
  if (typeof Search === "undefined" || !Search._parseQuery) return;
  const parse = Search._parseQuery;
  Search._parseQuery = (query) => {
    const parsed = parse(query);
    const [, terms, , highlighted] = parsed;
    for (const number of query.match(/\b\d{3,}\b/g) || []) {
      terms.add(number);
      highlighted.add(number);
    }
    return parsed;
  };
})();
