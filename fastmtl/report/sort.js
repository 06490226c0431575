// A click on a column's head sorts the table of concepts by it.
for (const table of document.querySelectorAll("table.concepts")) {
  const heads = [...table.tHead.rows[1].cells];
  const body = table.tBodies[0];
  const value = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent;
    return column === 0 ? text : Number.isNaN(parseFloat(text)) ? -1 : parseFloat(text);
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") === "descending" || (column === 0 && !head.hasAttribute("aria-sort"));
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const order = (a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        return (x < y ? -1 : x > y ? 1 : 0) * (rising ? 1 : -1);
      };
      body.append(...[...body.rows].sort(order));
    });
  });
}
