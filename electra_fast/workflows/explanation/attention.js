// Draws the heads of one text. The data lie in the page: probabilities as bytes, [layers, heads, S, S].
const data = JSON.parse(document.getElementById("attention").textContent);
const size = data.tokens.length;
const values = Uint8Array.from(atob(data.values), (c) => c.charCodeAt(0));
const at = (layer, head, row, column) => values[((layer * data.heads + head) * size + row) * size + column];
const byId = (name) => document.getElementById(name);
let chosen = null;

// White for nothing, green for all; the root makes small shares visible.
function draw(canvas, layer, head) {
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(size, size);
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      const strength = Math.sqrt(at(layer, head, row, column) / 255);
      const place = 4 * (row * size + column);
      picture.data[place] = 255 - strength * (255 - 11);
      picture.data[place + 1] = 255 - strength * (255 - 110);
      picture.data[place + 2] = 255 - strength * (255 - 79);
      picture.data[place + 3] = 255;
    }
  }
  context.putImageData(picture, 0, 0);
}

function choose(layer, head, canvas) {
  if (chosen) chosen.canvas.classList.remove("chosen");
  chosen = { layer, head, canvas };
  canvas.classList.add("chosen");
  draw(byId("map"), layer, head);
  byId("said").textContent = `Layer ${layer + 1}, head ${head + 1}`;
  look(0);
}

// Colours the sentence by where the token of this row looks.
function look(row) {
  const { layer, head } = chosen;
  [...byId("sentence").children].forEach((word, column) => {
    const share = at(layer, head, row, column) / 255;
    word.style.background = `rgba(11,110,79,${(0.85 * Math.sqrt(share)).toFixed(2)})`;
    word.title = `${data.tokens[row]} → ${data.tokens[column]}: ${(100 * share).toFixed(0)} %`;
    word.classList.toggle("from", column === row);
  });
}

data.tokens.forEach((token, index) => {
  const word = document.createElement("span");
  word.textContent = token;
  word.onmouseenter = () => {
    look(index);
    byId("said").textContent = `Layer ${chosen.layer + 1}, head ${chosen.head + 1}: where “${token}” looks`;
  };
  byId("sentence").append(data.spaces[index] && index ? " " : "", word);
});

const map = byId("map");
const pixel = Math.max(2, Math.min(28, Math.floor(520 / size)));
map.style.width = map.style.height = `${pixel * size}px`;
map.onmousemove = (event) => {
  const column = Math.min(size - 1, Math.floor(event.offsetX / pixel));
  const row = Math.min(size - 1, Math.floor(event.offsetY / pixel));
  const share = (100 * at(chosen.layer, chosen.head, row, column)) / 255;
  look(row);
  byId("said").textContent =
    `Layer ${chosen.layer + 1}, head ${chosen.head + 1}: ${data.tokens[row]} → ${data.tokens[column]}: ${share.toFixed(0)} %`;
};

const titles = byId("heads").insertRow();
titles.insertCell();
for (let head = 0; head < data.heads; head++) titles.insertCell().textContent = `head ${head + 1}`;
for (let layer = 0; layer < data.layers; layer++) {
  const row = byId("heads").insertRow();
  row.insertCell().textContent = `layer ${layer + 1} `;
  for (let head = 0; head < data.heads; head++) {
    const canvas = document.createElement("canvas");
    draw(canvas, layer, head);
    canvas.onclick = () => choose(layer, head, canvas);
    row.insertCell().append(canvas);
  }
}
choose(0, 0, document.querySelector("#heads canvas"));
