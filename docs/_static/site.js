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

// Tables that site.css stacks on a telephone: those with sentences in three columns, or too wide.
// A table of figures, or of yes and no, is one to compare columns in, and scrolls.
for (const wrapper of document.querySelectorAll(".table-wrapper")) {
  const columns = [...wrapper.querySelectorAll("thead th")].map((cell) => cell.textContent.trim());
  const cells = [...wrapper.querySelectorAll("tbody td")];
  const letters = cells.reduce((sum, cell) => sum + cell.textContent.length, 0);
  if (columns.length < 3 && wrapper.scrollWidth <= wrapper.clientWidth) continue;
  if (letters < 14 * cells.length) continue;
  wrapper.querySelector("table").classList.add("stacked");
  for (const cell of cells) {
    if (cell.textContent.trim()) cell.dataset.column = columns[cell.cellIndex];
  }
}

// The name of a test in a table is longer than any column.
for (const code of document.querySelectorAll(".table-wrapper code")) {
  if (code.textContent.length > 40) code.classList.add("breaks");
}

// On a narrow screen a method's name breaks behind the name of its class.
for (const { firstChild: name } of document.querySelectorAll("article h4")) {
  const dot = name.textContent.indexOf(".") + 1;
  if (name instanceof Text && dot) name.splitText(dot).before(document.createElement("wbr"));
}
