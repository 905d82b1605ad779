"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const number = (value) => value.toLocaleString("en-US");

  // Text of the data becomes text nodes and attributes only, never markup.
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children.filter((child) => child !== null && child !== ""));
    return element;
  };
  const size = (bytes) => bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.max(1, Math.round(bytes / 1e3))} kB`;
  const describe = (sample) => [
    sample.width && sample.height ? `${sample.width} × ${sample.height}` : "", sample.bytes ? size(sample.bytes) : "",
  ].filter(Boolean).join(", ");
  const frame = (sample, kind = "") => {
    const box = make("div", { class: `frame ${kind}` });
    if (sample && sample.url) box.append(make("img", { src: sample.url, alt: sample.caption || sample.id, loading: "lazy" }));
    else {
      const text = (sample && (sample.caption || sample.id)) || "not shown";
      box.append(make("div", { class: "text", title: text }, text));
    }
    return box;
  };
  const line = (kind, text) => text ? make("span", { class: kind, title: text }, text) : "";  // cut at its end, whole in the title
  const chip = (sample) => sample.kept
    ? make("span", { class: "chip kept" }, sample.again ? "re-admitted" : "kept") : make("span", { class: "chip removed" }, "removed");
  const tile = (sample, ...remarks) => make("div", { class: "tile" }, frame(sample), make("span", { class: "id" }, sample.id),
    chip(sample), ...remarks, sample.url || !sample.caption ? make("span", { class: "caption" }, sample.caption || "") : "");

  // Light and dark
  const theme = $("theme"), system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const redraws = [];
  const showTheme = () => { theme.setAttribute("aria-pressed", String(isDark())); redraws.forEach((redraw) => redraw()); };
  theme.addEventListener("click", () => { document.documentElement.dataset.theme = isDark() ? "light" : "dark"; showTheme(); });
  system.addEventListener("change", showTheme);

  // Gallery
  const PAGE = 12;
  let order = "size", shown = PAGE;
  const gallery = data.gallery;
  const lost = (hood) => hood.lost ? hood.lost[2] : -1;
  const ORDERS = { size: (a, b) => b.size - a.size, least: (a, b) => a.least - b.least, lost: (a, b) => lost(b) - lost(a) };
  const includes = (sample, query) => sample && `${sample.id}\n${sample.caption || ""}`.toLowerCase().includes(query);
  const showHood = (hood) => {
    const one = data.samples[hood.row];
    const members = make("div", { class: "members" });
    hood.members.forEach(([row, cosine], place) => {
      const sample = data.samples[row] || { id: `row ${row}` };
      if (place === hood.members.length - 1 && hood.size > hood.members.length)
        members.append(make("div", { class: "rest" }, `+ ${number(hood.size - hood.members.length)} more`));
      members.append(make("div", { class: "member" }, frame(sample), make("span", { class: "cosine" }, cosine.toFixed(4)),
        line("id", sample.id), line("words", sample.url && sample.caption),
        describe(sample) && make("span", { class: "size" }, describe(sample))));
    });
    const head = make("p", { class: "head" }, make("strong", {}, `stands for ${number(hood.size)}`),
      make("span", { class: "chip" }, `least similar ${hood.least.toFixed(4)}`));
    if (hood.lost) head.append(make("span", { class: "chip removed" }, `${hood.lost[0]}: ${hood.lost[1]} lost ${hood.lost[2].toFixed(2)}`));
    return make("article", { class: "hood card", "aria-label": `${one.id} stands for ${hood.size}` },
      make("div", { class: "one" }, frame(one), make("span", { class: "id" }, one.id), chip(one), " ",
        make("span", { class: "muted" }, describe(one)), one.url && one.caption ? make("span", { class: "caption" }, one.caption) : ""),
      make("div", {}, head, members));
  };
  const showGallery = () => {
    const list = $("gallery-list");
    if (!list) return;
    const query = $("filter").value.trim().toLowerCase();
    const found = gallery.filter((hood) => !query || includes(data.samples[hood.row], query)
      || hood.members.some(([row]) => includes(data.samples[row], query))).sort(ORDERS[order]);
    list.replaceChildren(...found.slice(0, shown).map(showHood));
    $("more").hidden = found.length <= shown;
    $("gallery-count").textContent = query ? `${found.length} of ${gallery.length} fit` : "";
  };
  for (const button of document.querySelectorAll("[data-sort]")) button.addEventListener("click", () => {
    order = button.dataset.sort;
    shown = PAGE;
    for (const other of document.querySelectorAll("[data-sort]")) other.setAttribute("aria-pressed", String(other === button));
    showGallery();
  });
  if ($("filter")) $("filter").addEventListener("input", () => { shown = PAGE; showGallery(); });
  if ($("more")) $("more").addEventListener("click", () => { shown += PAGE; showGallery(); });

  // The largest neighbourhood with pictures, under the first sentence
  const hero = gallery.find((hood) => data.samples[hood.row].url && hood.members.filter(([row]) => (data.samples[row] || {}).url).length > 2);
  if (hero) {
    const rows = hero.members.map(([row]) => data.samples[row]).filter((sample) => sample && sample.url).slice(0, 6);
    $("hero-pictures").replaceChildren(frame(data.samples[hero.row], "lead"), ...rows.map((sample) => frame(sample)),
      make("span", { class: "says" }, `One kept sample, and ${rows.length} of the ${number(hero.size)} that it stands for.`));
    $("hero-pictures").hidden = false;
  }

  // Borderline
  const bands = data.bands;
  const showBand = () => {
    const band = bands[Number($("cosine").value)], range = `${band.low.toFixed(4)} to ${band.high.toFixed(4)}`;
    $("cosine-value").textContent = range;
    $("cosine").setAttribute("aria-valuetext", `cosine ${range}`);
    let says = "Both are kept: a larger eps would remove one of each pair.";
    if (band.count !== null) {
      const saved = bands.filter((other) => other.count !== null && other.high <= band.high).reduce((sum, other) => sum + other.count, 0);
      const eps = Math.max(0, 1 - band.high);
      says = `${number(band.count)} removed at this cosine. `
        + `At eps ${eps.toFixed(4)} these and the less similar ones would be kept, about ${number(saved)} in all.`;
    }
    $("cosine-says").textContent = says;
    $("pair-list").replaceChildren(...band.pairs.map(([first, second, cosine]) => {
      const two = [data.samples[second], data.samples[first]];
      return make("article", { class: "couple card" },
        make("div", { class: "head" }, `cosine ${cosine.toFixed(4)}`, make("span", { class: "chip" }, band.count === null ? "both kept" : "one removed")),
        make("div", { class: "two" }, ...two.map((sample) => make("div", {}, frame(sample), make("span", { class: "id" }, sample.id), chip(sample)))));
    }));
    if (!band.pairs.length) $("pair-list").append(make("p", { class: "muted" }, "No pair of this cosine to show."));
  };
  if (bands.length) {
    const at = Math.max(0, bands.findIndex((band) => band.count !== null));
    $("cosine").value = at;
    $("threshold").textContent = `threshold ${(1 - data.eps).toFixed(4)}`;
    $("threshold").style.left = bands.length > 1 ? `${Math.min(92, Math.max(8, 100 * (at - 0.5) / (bands.length - 1)))}%` : "50%";
    $("cosine").addEventListener("input", showBand);
    showBand();
  }

  // Outliers
  if ($("outlier-list")) $("outlier-list").replaceChildren(...data.outliers.map((row) => tile(data.samples[row],
    make("span", { class: "muted" }, ` ${data.samples[row].centre.toFixed(3)} to its centroid`))));

  // The columns of the map, which also make all of its samples searchable
  const map = data.map;
  const inflate = async (text) => {
    const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
  };
  const TYPES = { x: Uint16Array, y: Uint16Array, kept: Uint8Array, cluster: Uint16Array, step: Uint32Array, owner: Int32Array, cosine: Uint16Array };
  const columns = {};
  const unpack = async () => {
    for (const [name, text] of Object.entries(map.columns)) columns[name] = new TYPES[name](await inflate(text));
    columns.row = new Float64Array(map.n);
    for (let k = 0, row = 0; k < map.n; k++) columns.row[k] = row += columns.step[k];
    for (const group of map.groups) group.codes = new Uint8Array(await inflate(group.codes));
    const decoder = new TextDecoder();
    for (const name of ["ids", "captions"]) if (map[name]) map[name] = JSON.parse(decoder.decode(await inflate(map[name])));
  };
  const pointAt = (k) => {
    const known = data.samples[columns.row[k]], picture = map.pictures && map.pictures[k];
    const url = picture && map.before + picture;
    if (known) return known.url || !url ? known : { ...known, url };
    const sample = { id: map.ids ? map.ids[k] : `row ${number(columns.row[k])}`, kept: Boolean(columns.kept[k]), cluster: columns.cluster[k], at: k };
    if (url) sample.url = url;
    if (map.captions) sample.caption = map.captions[k];
    if (columns.cosine && columns.cosine[k] !== 65535) sample.cosine = columns.cosine[k] / 1e4 - 1;
    return sample;
  };
  const ownerOf = (sample, k) => {
    if (k !== undefined && columns.owner && columns.owner[k] >= 0) return pointAt(columns.owner[k]).id;
    const known = data.samples[sample.owner];
    return known ? known.id : null;
  };
  const explain = (sample, k) => {
    if (sample.kept) return "";
    const owner = ownerOf(sample, k);
    return owner === null ? "" : ` for ${owner}${sample.cosine === undefined ? "" : ` (${sample.cosine.toFixed(4)})`}`;
  };

  // Search
  const RESULTS = 24;
  let haystack = null;
  const buildHaystack = () => {
    const found = new Map();
    if (columns.row) for (let k = 0; k < map.n; k++) if (map.ids) found.set(columns.row[k], k);
    const texts = [...found.values()].map((k) => [k, null, `${map.ids[k]}\n${map.captions ? map.captions[k] : ""}`.toLowerCase()]);
    for (const [row, sample] of Object.entries(data.samples)) if (!found.has(Number(row)))
      texts.push([undefined, sample, `${sample.id}\n${sample.caption || ""}`.toLowerCase()]);
    return texts;
  };
  const countCaptions = () => map && map.captions ? haystack.length : Object.values(data.samples).filter((sample) => sample.caption).length;
  const search = () => {
    const words = $("query").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    haystack ??= buildHaystack();
    $("result-list").replaceChildren();
    const held = `${number(haystack.length)} of ${number(data.valid)} ${data.noun}`, captions = countCaptions();
    const lacking = captions && captions < haystack.length ? `; it has the captions of ${number(captions)} of them` : "";
    if (!words.length) {
      $("found").textContent = lacking ? `This page holds the ids of ${held}${lacking}.` : `${held} can be found here, by their ids and captions.`;
      return;
    }
    const hits = haystack.filter(([, , text]) => words.every((word) => text.includes(word)));
    let says = `${number(hits.length)} found${hits.length > RESULTS ? `, the first ${RESULTS} shown` : ""}`;
    if (!hits.length) says = haystack.length < data.valid || lacking ? `nothing found among the ${held} that this page holds${lacking}` : "nothing found";
    $("found").textContent = says;
    $("result-list").append(...hits.slice(0, RESULTS).map(([k, sample]) => {
      const one = sample || pointAt(k);
      return tile(one, make("span", { class: "muted" }, explain(one, k)));
    }));
  };
  $("query").addEventListener("input", search);

  // Map
  const PALETTE = ["#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#edc948", "#ff9da7", "#9c755f", "#5b8ff9", "#c2a5cf", "#7fbf7b"];
  const rgb = (text) => text.startsWith("#") ? [1, 3, 5].map((k) => parseInt(text.slice(k, k + 2), 16)) : text.match(/\d+/g).slice(0, 3).map(Number);
  const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const VERTEX = `#version 300 es
    in vec2 place; in vec3 colour; uniform vec2 centre; uniform vec2 scale; uniform float size; out vec3 shade;
    void main() { gl_Position = vec4((place - centre) * scale, 0., 1.); gl_PointSize = size; shade = colour; }`;
  const FRAGMENT = `#version 300 es
    precision mediump float; in vec3 shade; uniform float alpha; out vec4 result;
    void main() { vec2 d = gl_PointCoord - .5; float r = dot(d, d); if (r > .25) discard; float a = alpha * smoothstep(.25, .16, r); result = vec4(shade * a, a); }`;

  const startMap = () => {
    const canvas = $("points"), tip = $("tip"), choice = $("colours"), n = map.n;
    for (const [k, group] of map.groups.entries()) choice.append(make("option", { value: `group ${k}` }, group.name));
    const place = new Float32Array(2 * n), colour = new Uint8Array(3 * n);
    const reach = map.reach;  // outliers may lie so far out that the first view, from -1 to 1, does not hold them
    for (let k = 0; k < n; k++) { place[2 * k] = (columns.x[k] / 32767 - 1) * reach; place[2 * k + 1] = (columns.y[k] / 32767 - 1) * reach; }
    const view = { x: 0, y: 0, zoom: 1 };
    const gl = canvas.getContext("webgl2", { antialias: false, premultipliedAlpha: true });
    const flat = gl ? null : canvas.getContext("2d");
    let locations = null, colours = null;
    if (gl) {
      const program = gl.createProgram();
      for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
        const shader = gl.createShader(kind);
        gl.shaderSource(shader, source);
        gl.compileShader(shader);
        gl.attachShader(program, shader);
      }
      gl.linkProgram(program);
      gl.useProgram(program);
      const attach = (name, values, width, type, normal) => {
        const buffer = gl.createBuffer(), location = gl.getAttribLocation(program, name);
        gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
        gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
        gl.enableVertexAttribArray(location);
        gl.vertexAttribPointer(location, width, type, normal, 0, 0);
        return buffer;
      };
      attach("place", place, 2, gl.FLOAT, false);
      colours = attach("colour", colour, 3, gl.UNSIGNED_BYTE, true);
      locations = Object.fromEntries(["centre", "scale", "size", "alpha"].map((name) => [name, gl.getUniformLocation(program, name)]));
      gl.enable(gl.BLEND);
      gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    }
    const scale = () => view.zoom * 0.94;
    const radius = () => Math.max(1.6, Math.min(9, 2.2 * Math.sqrt(view.zoom) * Math.pow(40_000 / n, 0.22)));
    let waiting = false;
    const draw = () => {
      waiting = false;
      const ratio = Math.min(2, devicePixelRatio || 1), box = canvas.getBoundingClientRect();
      const width = Math.round(box.width * ratio), height = Math.round(box.height * ratio);
      if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
      if (gl) {
        gl.viewport(0, 0, width, height);
        gl.clearColor(0, 0, 0, 0);
        gl.clear(gl.COLOR_BUFFER_BIT);
        gl.uniform2f(locations.centre, view.x, view.y);
        gl.uniform2f(locations.scale, scale(), scale());
        gl.uniform1f(locations.size, 2 * radius() * ratio);
        gl.uniform1f(locations.alpha, n > 100_000 ? 0.55 : 0.8);
        gl.drawArrays(gl.POINTS, 0, n);
      } else if (flat) {
        flat.clearRect(0, 0, width, height);
        const side = 2 * radius() * ratio, step = Math.ceil(n / 100_000);
        for (let k = 0; k < n; k += step) {
          flat.fillStyle = `rgb(${colour[3 * k]},${colour[3 * k + 1]},${colour[3 * k + 2]})`;
          flat.fillRect(((place[2 * k] - view.x) * scale() + 1) / 2 * width - side / 2, (1 - (place[2 * k + 1] - view.y) * scale()) / 2 * height - side / 2, side, side);
        }
      }
    };
    const redraw = () => { if (!waiting) { waiting = true; requestAnimationFrame(draw); } canvas.dataset.zoom = String(view.zoom); };
    const paint = () => {
      const kinds = [rgb(variable("--removed")), rgb(variable("--kept"))], palette = PALETTE.map(rgb), none = rgb(variable("--neutral"));
      const group = choice.value.startsWith("group") ? map.groups[Number(choice.value.slice(6))] : null;
      for (let k = 0; k < n; k++) {
        let tint;
        if (group) tint = group.codes[k] === 255 ? none : palette[group.codes[k] % palette.length];
        else tint = choice.value === "cluster" ? palette[columns.cluster[k] % palette.length] : kinds[columns.kept[k]];
        colour.set(tint, 3 * k);
      }
      if (gl) { gl.bindBuffer(gl.ARRAY_BUFFER, colours); gl.bufferData(gl.ARRAY_BUFFER, colour, gl.STATIC_DRAW); }
      let entries = [["kept", variable("--kept")], ["removed", variable("--removed")]];
      if (group) entries = group.groups.slice(0, 12).map((name, k) => [name, PALETTE[k % PALETTE.length]]);
      else if (choice.value === "cluster") entries = [["neighbouring numbers differ in colour", PALETTE[0]]];
      $("key").replaceChildren(...entries.map(([name, tint]) => {
        const dot = make("i");
        dot.style.background = tint;
        return make("span", {}, dot, name);
      }));
      redraw();
    };
    choice.addEventListener("change", paint);
    redraws.push(paint);

    // A grid finds the point under the pointer.
    const SIDE = 256, cell = (k) => (columns.y[k] >> 8) * SIDE + (columns.x[k] >> 8);
    const starts = new Uint32Array(SIDE * SIDE + 1), sorted = new Uint32Array(n);
    for (let k = 0; k < n; k++) starts[cell(k) + 1]++;
    for (let c = 0; c < SIDE * SIDE; c++) starts[c + 1] += starts[c];
    const filled = starts.slice();
    for (let k = 0; k < n; k++) sorted[filled[cell(k)]++] = k;
    const nearest = (px, py) => {
      const box = canvas.getBoundingClientRect(), right = box.width * scale() / 2, up = box.height * scale() / 2;  // pixels of a unit
      const x = (px - box.width / 2) / right + view.x, y = (box.height / 2 - py) / up + view.y;
      const cellOf = (v) => Math.max(0, Math.min(SIDE - 1, Math.floor((v / reach + 1) * 32767 / 256)));
      let best = -1, least = 12 * 12;
      for (let row = cellOf(y - 12 / up); row <= cellOf(y + 12 / up); row++)
        for (let column = cellOf(x - 12 / right); column <= cellOf(x + 12 / right); column++)
          for (let at = starts[row * SIDE + column]; at < starts[row * SIDE + column + 1]; at++) {
            const k = sorted[at], dx = (place[2 * k] - x) * right, dy = (place[2 * k + 1] - y) * up;
            if (dx * dx + dy * dy < least) { least = dx * dx + dy * dy; best = k; }
          }
      return best;
    };
    const show = (px, py) => {
      const k = nearest(px, py);
      tip.hidden = k < 0;
      if (k < 0) return;
      const sample = pointAt(k), lines = [make("strong", {}, sample.id), make("br"), chip(sample), explain(sample, k)];
      if (sample.url) lines.unshift(make("img", { src: sample.url, alt: "" }));
      if (sample.caption) lines.push(make("br"), sample.caption);
      tip.replaceChildren(...lines.filter((line) => line !== ""));
      const box = canvas.getBoundingClientRect();
      tip.style.left = `${Math.max(4, Math.min(px + 14, box.width - tip.offsetWidth - 6))}px`;
      tip.style.top = `${Math.max(4, py + 14 + tip.offsetHeight > box.height ? py - tip.offsetHeight - 10 : py + 14)}px`;
    };
    const zoom = (factor, px, py) => {
      const box = canvas.getBoundingClientRect(), before = scale(), goal = Math.min(400, Math.max(0.6 / reach, view.zoom * factor));
      const ux = 2 * px / box.width - 1, uy = 1 - 2 * py / box.height;
      view.zoom = goal;
      view.x += ux / before - ux / scale();
      view.y += uy / before - uy / scale();
      redraw();
    };
    const pointers = new Map();
    canvas.addEventListener("pointerdown", (event) => { pointers.set(event.pointerId, event); canvas.setPointerCapture(event.pointerId); });
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => pointers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
    canvas.addEventListener("pointermove", (event) => {
      const last = pointers.get(event.pointerId), box = canvas.getBoundingClientRect();
      if (last) {
        const others = [...pointers.values()].filter((other) => other.pointerId !== event.pointerId);
        if (others.length) {
          const apart = (one) => Math.hypot(one.clientX - others[0].clientX, one.clientY - others[0].clientY) || 1;
          zoom(apart(event) / apart(last), (event.clientX + others[0].clientX) / 2 - box.left, (event.clientY + others[0].clientY) / 2 - box.top);
        } else {
          view.x -= 2 * (event.clientX - last.clientX) / box.width / scale();
          view.y += 2 * (event.clientY - last.clientY) / box.height / scale();
          redraw();
        }
        pointers.set(event.pointerId, event);
        tip.hidden = true;
      } else show(event.clientX - box.left, event.clientY - box.top);
    });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = canvas.getBoundingClientRect();
      zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
    const showAll = () => { Object.assign(view, { x: 0, y: 0, zoom: 1 / reach }); redraw(); };
    canvas.addEventListener("keydown", (event) => {
      const step = 0.2 / view.zoom, box = canvas.getBoundingClientRect(), middle = [box.width / 2, box.height / 2];
      const keys = {
        ArrowLeft: () => { view.x -= step; }, ArrowRight: () => { view.x += step; }, ArrowUp: () => { view.y += step; },
        ArrowDown: () => { view.y -= step; }, "+": () => zoom(1.5, ...middle), "=": () => zoom(1.5, ...middle),
        "-": () => zoom(1 / 1.5, ...middle), 0: showAll, Enter: () => show(...middle), Escape: () => { tip.hidden = true; },
      };
      if (!keys[event.key]) return;
      keys[event.key]();
      event.preventDefault();
      redraw();
    });
    $("reset").addEventListener("click", showAll);
    new ResizeObserver(redraw).observe(canvas);
    paint();
    canvas.dataset.first = `${(place[0] * scale() + 1) / 2} ${(1 - place[1] * scale()) / 2}`;  // where the first point is
    canvas.dataset.ready = gl ? "webgl2" : "2d";
  };

  showTheme();
  showGallery();
  const finish = () => { haystack = null; search(); document.documentElement.dataset.ready = "yes"; };
  if (map) unpack().then(startMap).then(finish, (error) => { $("key").textContent = "The map cannot be shown by this browser."; finish(); console.warn(String(error)); });
  else finish();
})();
