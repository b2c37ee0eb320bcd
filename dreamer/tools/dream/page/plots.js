// Draws curves and heat strips on canvases.

let colours = {};
const readColours = () => {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["real", "dream", "line", "soft", "ink", "panel"]) colours[name] = style.getPropertyValue(`--${name}`);
};
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", readColours);

// Return a canvas's context, after clearing the canvas and resizing it to its pixels on the screen.
export function cleared(canvas) {
  if (!colours.real) readColours();
  const ratio = devicePixelRatio;
  const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  return { context, width: canvas.clientWidth, height: canvas.clientHeight, colours };
}

const told = (number) => (number === null || number === undefined ? "" : Number(number).toPrecision(3));

class Plot {
  constructor(parent, title, read) {
    this.read = read; // {real, dream}: functions from a step to its number, or to a list for several dreams
    this.element = parent.appendChild(document.createElement("div"));
    this.element.className = "plot";
    this.element.innerHTML = "<div><span></span><span><i class=real></i><i class=dream></i></span></div><canvas></canvas>";
    this.element.querySelector("span").textContent = title;
    this.numbers = { real: this.element.querySelector("i.real"), dream: this.element.querySelector("i.dream") };
    this.canvas = this.element.querySelector("canvas");
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", title);
  }

  // Return [[step, [numbers]], …] of one side.
  steps(past, side) {
    const found = [];
    for (const [number, step] of past[side]) {
      const value = this.read[side]?.(step);
      if (number >= past.first && value !== undefined) found.push([number, Array.isArray(value) ? value : [value]]);
    }
    return found.sort((one, other) => one[0] - other[0]);
  }

  tell(past) {
    for (const side of ["real", "dream"]) {
      const value = past[side].has(past.number) ? this.read[side]?.(past[side].get(past.number)) : null;
      this.numbers[side].textContent = told(Array.isArray(value) ? value[0] : value);
    }
  }
}

export class Curve extends Plot {
  draw(past) {
    this.tell(past);
    const { context, width, height, colours } = cleared(this.canvas);
    const sides = { real: this.steps(past, "real"), dream: this.steps(past, "dream") };
    const all = Object.values(sides).flat().flatMap(([, values]) => values).filter((value) => value !== null);
    if (!all.length) return;
    let [low, high] = [Math.min(...all), Math.max(...all)];
    const margin = Math.max((high - low) * 0.08, Math.abs(high) * 1e-3, 1e-3);
    [low, high] = [low - margin, high + margin];
    const x = (number) => ((number - past.first) / (past.kept - 1)) * (width - 2) + 1;
    const y = (value) => height - 1 - ((value - low) / (high - low)) * (height - 2);
    context.lineWidth = 1;
    context.strokeStyle = colours.line;
    context.strokeRect(0.5, 0.5, width - 1, height - 1);
    if (low < 0 && high > 0) line(context, [[0, y(0)], [width, y(0)]]);
    for (const side of ["real", "dream"]) {
      const count = sides[side].reduce((most, [, values]) => Math.max(most, values.length), 1);
      context.strokeStyle = colours[side];
      context.globalAlpha = count > 1 ? 0.5 : 1;
      context.lineWidth = count > 1 ? 1 : 1.6;
      context.setLineDash(side === "dream" && count === 1 ? [4, 2] : []);
      for (let each = 0; each < count; each++) {
        line(context, sides[side].map(([number, values]) => {
          const value = values[each] ?? (values.length === 1 ? values[0] : null);
          return value === null || value === undefined ? null : [x(number), y(value), number];
        }));
      }
      context.globalAlpha = 1;
      context.setLineDash([]);
    }
    context.strokeStyle = colours.soft;
    line(context, [[x(past.number), 0], [x(past.number), height]]);
  }
}

// Stroke a line through points; null, or a step that is missing, interrupts it.
function line(context, points) {
  context.beginPath();
  let before = null;
  for (const point of points) {
    if (point && before && !(point[2] - before[2] > 3)) context.lineTo(point[0], point[1]);
    else if (point) context.moveTo(point[0], point[1]);
    before = point;
  }
  context.stroke();
}

// Numbers as colours: reality above, the first dream below.
export class Heat extends Plot {
  draw(past) {
    this.tell(past);
    const { context, width, height, colours } = cleared(this.canvas);
    const sides = [this.steps(past, "real"), this.steps(past, "dream")];
    const all = sides.flat().map(([, values]) => values[0]).filter((value) => value !== null);
    const [low, high] = [Math.min(...all), Math.max(...all)];
    const wide = width / past.kept;
    sides.forEach((steps, row) => {
      for (const [number, [value]] of steps) {
        if (value === null) continue;
        context.fillStyle = heat(high > low ? (value - low) / (high - low) : 0);
        context.fillRect((number - past.first) * wide, (row * height) / 2 + row, wide + 0.6, height / 2 - 1);
      }
    });
    context.fillStyle = colours.soft;
    context.fillRect((past.number - past.first) * wide, 0, 1, height);
  }
}

// Return a colour from dark blue (0) over red to bright yellow (1), which differ in brightness, too.
function heat(share) {
  const stops = [[13, 20, 60], [90, 30, 125], [200, 60, 80], [250, 150, 40], [252, 250, 150]];
  const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const [from, to] = [stops[Math.floor(place)], stops[Math.ceil(place)]];
  return `rgb(${from.map((part, index) => Math.round(part + (to[index] - part) * (place % 1))).join(" ")})`;
}
