// Sliders and keys for the actions of the person at the page.

const DIRECTIONS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowDown: [1, -1], ArrowUp: [1, 1] };

export class Controls {
  constructor(parent, controls, resting, act) {
    [this.controls, this.resting, this.act] = [controls, resting, act];
    this.values = [...resting];
    this.held = new Map();
    parent.hidden = !controls.length;
    this.parent = parent;
    this.inputs = controls.map((control, place) => {
      const label = parent.appendChild(document.createElement("label"));
      label.append(control.name);
      const input = label.appendChild(document.createElement("input"));
      Object.assign(input, { type: "range", min: control.low, max: control.high });
      input.step = control.whole ? 1 : (control.high - control.low) / 100;
      label.appendChild(document.createElement("output"));
      input.addEventListener("input", () => this.set(place, Number(input.value)));
      return input;
    });
    this.show(this.values);
  }

  set(place, value) {
    this.values[place] = value;
    this.show(this.values);
    this.act(this.values);
  }

  // Show the action that was taken.
  show(values) {
    values.forEach((value, place) => {
      this.inputs[place].value = value;
      this.inputs[place].nextSibling.textContent = this.controls[place].whole ? value : Number(value).toFixed(2);
    });
  }

  // Take a key if it means an action: arrows push as long as they are held, digits choose.
  down(key) {
    if (!this.controls.length) return false;
    const choice = this.controls.findIndex((control) => control.whole);
    if (/^[0-9]$/.test(key) && choice >= 0) {
      const { low, high } = this.controls[choice];
      if (low <= Number(key) && Number(key) <= high) this.set(choice, Number(key));
      return true;
    }
    if (!(key in DIRECTIONS)) return false;
    const [place, sign] = DIRECTIONS[key];
    const control = this.controls[place];
    if (!control) return false;
    if (control.whole) {
      this.set(place, Math.min(control.high, Math.max(control.low, this.values[place] + sign)));
    } else if (!this.held.has(key)) {
      this.held.set(key, place);
      this.set(place, sign < 0 ? control.low : control.high);
    }
    return true;
  }

  up(key) {
    if (!this.held.has(key)) return;
    const place = this.held.get(key);
    this.held.delete(key);
    const other = [...this.held].find(([, each]) => each === place);
    if (!other) this.set(place, this.resting[place]);
  }
}
