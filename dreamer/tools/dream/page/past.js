// Keeps the views by the number of the step, for the curves and the strip.

export class Past {
  constructor(kept) {
    this.kept = kept;
    this.clear();
  }

  clear() {
    this.real = new Map();
    this.dream = new Map();
    this.thumbnails = new Map();
    this.number = this.newest = this.oldest = 0;
    this.place = null;
  }

  // Keep a view. It replaces an earlier dream of the same step.
  add(view, picture) {
    [this.number, this.newest, this.oldest] = [view.number, view.newest, view.oldest];
    if (view.live) {
      for (const number of this.dream.keys()) if (number > view.number) this.dream.delete(number);
    }
    if (view.real) this.real.set(view.number, view.real);
    this.dream.set(view.number, { ...view.dream, asleep: view.dreaming });
    if (picture && view.live) this.keep(view.number, picture);
    for (const steps of [this.real, this.dream, this.thumbnails]) {
      for (const number of steps.keys()) if (number < this.first - 20) steps.delete(number);
    }
  }

  // The steps that are drawn: from `first` on, `kept` of them.
  get first() {
    return Math.max(0, Math.max(this.newest, this.number) - this.kept + 1);
  }

  keep(number, picture) {
    const full = new OffscreenCanvas(picture.width, picture.height);
    full.getContext("2d").putImageData(picture, 0, 0);
    const small = new OffscreenCanvas(64, Math.max(1, Math.round((64 * picture.height) / picture.width)));
    small.getContext("2d").drawImage(full, 0, 0, small.width, small.height);
    this.thumbnails.set(number, small);
  }
}
