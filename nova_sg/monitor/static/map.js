// The map of a group: a cell a member, on a canvas. A state is told by its
// shape as well as by its colour.

const HEIGHT = 440, SMALLEST = 5, LARGEST = 26;
const collator = new Intl.Collator("en", { numeric: true });

export class HeatMap {
  // shown(host) says whether a member matches the filters.
  constructor(canvas, { shown, pick, hover, label }) {
    this.canvas = canvas;
    this.shown = shown;
    this.label = label;
    this.kinds = new Map();
    this.hosts = [];
    this.cursor = -1;
    this.due = false;
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return this.index(event.clientX - box.left, event.clientY - box.top);
    };
    canvas.addEventListener("click", (event) => {
      const index = at(event);
      if (index < 0) return;
      this.cursor = index;
      this.draw();
      pick(this.hosts[index]);
    });
    canvas.addEventListener("pointermove", (event) => {
      const index = at(event);
      hover(index < 0 ? null : this.hosts[index], event);
    });
    canvas.addEventListener("pointerleave", (event) => hover(null, event));
    canvas.addEventListener("keydown", (event) => this.key(event, pick));
    canvas.addEventListener("focus", () => this.move(Math.max(0, this.cursor)));
    canvas.addEventListener("blur", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(canvas.parentElement);
  }

  replace(kinds) {
    this.kinds = kinds;
    this.sort();
  }

  change(changed, gone) {
    let moved = gone.length > 0;
    for (const host of gone) this.kinds.delete(host);
    for (const [host, kind] of Object.entries(changed)) {
      moved ||= !this.kinds.has(host);
      this.kinds.set(host, kind);
    }
    if (moved) this.sort();
    else this.draw();
  }

  sort() {
    this.hosts = [...this.kinds.keys()].sort(collator.compare);
    this.cursor = Math.min(this.cursor, this.hosts.length - 1);
    this.draw();
  }

  index(x, y) {
    const column = Math.floor(x / this.pitch), row = Math.floor(y / this.pitch);
    const index = row * this.columns + column;
    return column >= 0 && column < this.columns && index >= 0 && index < this.hosts.length ? index : -1;
  }

  key(event, pick) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns };
    if (event.key in steps) this.move(this.cursor + steps[event.key]);
    else if (event.key === "Home") this.move(0);
    else if (event.key === "End") this.move(this.hosts.length - 1);
    else if (event.key === "n") this.next();
    else if (event.key === "Enter" || event.key === " ") {
      if (this.cursor >= 0) pick(this.hosts[this.cursor]);
    } else return;
    event.preventDefault();
  }

  move(index) {
    if (index < 0 || index >= this.hosts.length) return;
    this.cursor = index;
    this.draw();
    const host = this.hosts[index];
    this.label(`${host}, ${this.kinds.get(host)}`);
  }

  next() {
    const count = this.hosts.length;
    for (let step = 1; step <= count; step++) {
      const index = (this.cursor + step) % count;
      if (this.kinds.get(this.hosts[index]) !== "up") return this.move(index);
    }
  }

  draw() {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => {
      this.due = false;
      this.paint();
    });
  }

  paint() {
    const { canvas } = this, width = canvas.parentElement.clientWidth - padding(canvas.parentElement);
    if (width <= 0) return;
    const count = this.hosts.length || 1;
    this.pitch = Math.max(SMALLEST, Math.min(LARGEST, Math.floor(Math.sqrt(width * HEIGHT / count))));
    this.columns = Math.max(1, Math.floor(width / this.pitch));
    const height = Math.ceil(count / this.columns) * this.pitch, scale = window.devicePixelRatio || 1;
    canvas.width = width * scale;
    canvas.height = height * scale;
    canvas.style.height = `${height}px`;
    const pen = canvas.getContext("2d"), style = getComputedStyle(canvas);
    const colour = (name) => resolve(canvas, style, name);
    const colours = Object.fromEntries(
      ["up", "down", "on-down", "held", "left", "unknown", "text"].map((name) => [name, colour(name)]));
    pen.scale(scale, scale);
    this.hosts.forEach((host, index) => {
      pen.globalAlpha = this.shown(host, this.kinds.get(host)) ? 1 : 0.13;
      cell(pen, this.kinds.get(host), index % this.columns * this.pitch,
        Math.floor(index / this.columns) * this.pitch, this.pitch, colours);
    });
    if (this.cursor >= 0 && document.activeElement === canvas) {
      pen.globalAlpha = 1;
      pen.strokeStyle = colours.text;
      pen.lineWidth = 2;
      pen.strokeRect(this.cursor % this.columns * this.pitch + 0.5,
        Math.floor(this.cursor / this.columns) * this.pitch + 0.5, this.pitch - 1, this.pitch - 1);
    }
  }
}

function padding(element) {
  const style = getComputedStyle(element);
  return parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
}

// A canvas knows no light-dark(): the browser is asked for the colour.
function resolve(canvas, style, name) {
  const before = canvas.style.color;
  canvas.style.color = `var(--${name})`;
  const colour = style.color;
  canvas.style.color = before;
  return colour;
}

// up: a small quiet square; down: the cell is filled and crossed out; forced
// down: barred; held: a frame with a bar; unwell: a frame with a slash;
// draining: a frame, half full; stopped: two bars; left: a dot; unknown: a
// frame.
function cell(pen, kind, x, y, pitch, colours) {
  const gap = pitch > 8 ? 1.5 : 0.5, size = pitch - 2 * gap, line = Math.max(1, pitch / 9);
  const middle = y + pitch / 2, inner = gap + size * 0.24;
  pen.lineWidth = line;
  if (kind === "up") {
    pen.fillStyle = colours.up;
    pen.fillRect(x + gap, y + gap, size, size);
  } else if (kind === "down" || kind === "forced") {
    pen.fillStyle = colours.down;
    pen.fillRect(x, y, pitch, pitch);
    pen.strokeStyle = colours["on-down"];
    pen.beginPath();
    if (kind === "down") {
      pen.moveTo(x + inner, y + inner);
      pen.lineTo(x + pitch - inner, y + pitch - inner);
      pen.moveTo(x + pitch - inner, y + inner);
      pen.lineTo(x + inner, y + pitch - inner);
    } else {
      pen.moveTo(x + inner, middle);
      pen.lineTo(x + pitch - inner, middle);
    }
    pen.stroke();
  } else if (kind === "left") {
    pen.fillStyle = colours.left;
    pen.beginPath();
    pen.arc(x + pitch / 2, middle, Math.max(1, pitch / 6), 0, 7);
    pen.fill();
  } else if (kind === "stopped") {
    pen.fillStyle = colours.up;
    pen.fillRect(x + gap, y + gap, size * 0.36, size);
    pen.fillRect(x + gap + size * 0.64, y + gap, size * 0.36, size);
  } else {
    pen.strokeStyle = { draining: colours.up, unwell: colours.held }[kind] || colours[kind] || colours.unknown;
    pen.strokeRect(x + gap + line / 2, y + gap + line / 2, size - line, size - line);
    if (kind === "draining") {
      pen.fillStyle = colours.up;
      pen.fillRect(x + gap, middle, size, size / 2);
    } else if (kind === "held" || kind === "unwell") {
      const slope = kind === "held" ? 0 : size / 2;
      pen.beginPath();
      pen.moveTo(x + gap, middle + slope);
      pen.lineTo(x + pitch - gap, middle - slope);
      pen.stroke();
    }
  }
}
