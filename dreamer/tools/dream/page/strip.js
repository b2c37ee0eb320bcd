// The strip of the last steps: their pictures, marks of dreams, and the step that is shown. A click goes back.

import { cleared } from "./plots.js";

export class Strip {
  constructor(canvas, goBack) {
    this.canvas = canvas;
    this.hovered = null;
    const number = (event) => this.first + Math.floor((event.offsetX / canvas.clientWidth) * this.kept);
    canvas.addEventListener("click", (event) => goBack(number(event)));
    canvas.addEventListener("pointermove", (event) => { this.hovered = number(event); });
    canvas.addEventListener("pointerleave", () => { this.hovered = null; });
  }

  draw(past) {
    [this.first, this.kept] = [past.first, past.kept];
    const { context, width, height, colours } = cleared(this.canvas);
    const wide = width / past.kept;
    const x = (number) => (number - past.first) * wide;
    const tall = height - 8;
    for (const [number, picture] of past.thumbnails) {
      const size = (tall * picture.width) / picture.height;
      const every = Math.ceil(size / wide); // the same steps whatever the first one is, so that pictures move and do not change
      if (number % every === 0) context.drawImage(picture, x(number), 0, size, tall);
    }
    if (!past.thumbnails.size) this.rewards(past, context, x, wide, tall, colours);
    for (const [number, step] of past.dream) {
      context.fillStyle = step.asleep ? colours.dream : colours.line;
      if (number >= past.first) context.fillRect(x(number), height - 5, wide + 0.5, 5);
    }
    for (const [number, step] of past.real) {
      context.fillStyle = colours.ink;
      if (step.begins && number > past.first) context.fillRect(x(number), 0, 2, height);
    }
    if (this.hovered !== null) this.mark(context, x(this.hovered), height, colours.soft, `step ${this.hovered}`, width);
    this.mark(context, x(past.number), height, colours.dream, "", width);
  }

  rewards(past, context, x, wide, tall, colours) {
    const most = Math.max(1e-6, ...[...past.real.values()].map((step) => Math.abs(step.reward ?? 0)));
    context.fillStyle = colours.real;
    for (const [number, step] of past.real) {
      const size = (Math.abs(step.reward ?? 0) / most) * tall;
      context.fillRect(x(number), tall - size, Math.max(1, wide - 0.5), size);
    }
  }

  mark(context, left, height, colour, text, width) {
    context.fillStyle = colour;
    context.fillRect(left - 1, 0, 2, height);
    if (!text) return;
    context.font = "11px system-ui";
    const size = context.measureText(text).width + 8;
    const from = Math.min(left + 3, width - size);
    context.fillRect(from, 2, size, 16);
    context.fillStyle = "#fff";
    context.fillText(text, from + 4, 14);
  }
}
