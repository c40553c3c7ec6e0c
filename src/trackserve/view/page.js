// The event display. An event arrives as a block (see scene.py); everything that is drawn shares one
// buffer of hit positions, and a filter only writes new lists of which hits and lines to draw.
import * as THREE from "three";
import { OrbitControls } from "three/orbit";

const TYPES = { "<f4": Float32Array, "<f8": Float64Array, "<i4": Int32Array, "|u1": Uint8Array };
const NOT_MATCHED = 0, MATCHED = 1;
const FREE_HIT = [0.27, 0.33, 0.48], WRONG = [0.95, 0.36, 0.33], RIGHT = [0.36, 0.83, 0.54], SHORT = [0.55, 0.58, 0.66];
// From dark violet over green to yellow, near to matplotlib's viridis, lighter at its dark end.
const RAMP = [[0.42, 0.3, 0.72], [0.26, 0.47, 0.75], [0.15, 0.66, 0.62], [0.45, 0.82, 0.36], [0.99, 0.91, 0.25]];
const LOWEST_PT = 0.2, HIGHEST_PT = 10; // GeV, the ends of the colour scale
const DETECTORS = { "pixels": [7, 8, 9], "short strips": [12, 13, 14], "long strips": [16, 17, 18] };
const CLICK_RADIUS = 10; // pixels
const CROWD = 2000; // with more tracks only those above 1 GeV are shown at first
const element = (id) => document.getElementById(id);

// ---------------------------------------------------------------- reading

async function unpack(packed) {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const content = await new Response(stream).arrayBuffer();
  const length = new DataView(content).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(content, 4, length)));
  const event = { ...header };
  for (const { name, type, offset, length: count } of header.columns)
    event[name] = new TYPES[type](content, 4 + length + offset, count);
  event.hits = event.x.length;
  event.tracks = event.track_hits.length;
  event.judged = "track_verdict" in event;
  return event;
}

const embedded = [...document.querySelectorAll("script.event")];
const live = JSON.parse(element("live").textContent);
const count = live.length || embedded.length;
const loading = new Map();

function load(index) {
  if (!loading.has(index)) {
    const block = live.length ? fetched(index) : decoded(embedded[index].textContent);
    const event = block.then(unpack);
    event.catch(() => loading.delete(index)); // another look tries again
    loading.set(index, event);
    for (const old of loading.keys()) if (Math.abs(old - index) > 2) loading.delete(old);
  }
  return loading.get(index);
}

async function fetched(index) {
  const answer = await fetch(`events/${index}`);
  if (!answer.ok) throw new Error(await answer.text());
  return answer.arrayBuffer();
}

const decoded = async (text) => (await fetch(`data:application/octet-stream;base64,${text}`)).arrayBuffer();

// ---------------------------------------------------------------- drawing

THREE.ColorManagement.enabled = false; // colours on the screen are those of the scale
const canvas = element("canvas");
const renderer = new THREE.WebGLRenderer({ canvas, antialias: true });
renderer.outputColorSpace = THREE.LinearSRGBColorSpace;
const scene = new THREE.Scene();
scene.background = new THREE.Color("#0b1020");
const camera = new THREE.PerspectiveCamera(40, 1, 5, 100000);
const controls = new OrbitControls(camera, canvas);
let waiting = false;

function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; renderer.render(scene, camera); });
}
controls.addEventListener("change", redraw);

function resize() {
  renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
  renderer.setSize(window.innerWidth, window.innerHeight, false);
  camera.aspect = window.innerWidth / window.innerHeight;
  camera.updateProjectionMatrix();
  redraw();
}
window.addEventListener("resize", resize);

function look(view) {
  const { radius, length } = shown.extent;
  const across = Math.max(radius, length / camera.aspect);
  // Straight views are taken with a long lens from far away, so that lines along the view don't fan out.
  const [lens, from] = {
    oblique: [40, [1.9 * across, 1.1 * across, -1.9 * across]],
    beam: [8, [0, 0, -radius * 16]],
    side: [8, [-across * 17, 0, 0]],
  }[view];
  camera.fov = lens;
  camera.position.set(...from);
  camera.up.set(0, 1, 0);
  camera.updateProjectionMatrix();
  controls.target.set(0, 0, 0);
  controls.update();
  redraw();
}

let shown = null; // the event, with what is drawn of it

function build(event) {
  const position = new Float32Array(3 * event.hits);
  let radius = 1, length = 1;
  for (let i = 0; i < event.hits; i++) {
    position.set([event.x[i], event.y[i], event.z[i]], 3 * i);
    radius = Math.max(radius, Math.hypot(event.x[i], event.y[i]));
    length = Math.max(length, Math.abs(event.z[i]));
  }
  const positions = new THREE.BufferAttribute(position, 3);
  const colours = new THREE.BufferAttribute(new Float32Array(3 * event.hits), 3);
  const indexed = (size) => {
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute("position", positions);
    geometry.setAttribute("color", colours);
    geometry.setIndex(new THREE.BufferAttribute(new Uint32Array(size), 1));
    geometry.boundingSphere = new THREE.Sphere(new THREE.Vector3(), Math.hypot(radius, length));
    return geometry;
  };
  const crowded = event.hits > 20000;
  const drawn = {
    free: new THREE.Points(indexed(event.hits), new THREE.PointsMaterial({ size: crowded ? 1.2 : 2, sizeAttenuation: false, vertexColors: true, transparent: true, opacity: 0.6 })),
    hits: new THREE.Points(indexed(event.hits), new THREE.PointsMaterial({ size: crowded ? 1.6 : 3, sizeAttenuation: false, vertexColors: true })),
    lines: new THREE.LineSegments(indexed(2 * event.track_rows.length), new THREE.LineBasicMaterial({ vertexColors: true, transparent: true, opacity: crowded ? 0.7 : 0.95 })),
    particles: new THREE.LineSegments(indexed(2 * (event.particle_rows ?? []).length), new THREE.LineBasicMaterial({ color: 0xffffff, transparent: true, opacity: 0.85 })),
    chosenLine: new THREE.LineSegments(indexed(200), new THREE.LineBasicMaterial({ color: 0xffffff, depthTest: false })),
    chosenHits: new THREE.Points(indexed(200), new THREE.PointsMaterial({ color: 0xffffff, size: 7, sizeAttenuation: false, depthTest: false })),
    layers: layersOf(event),
  };
  event.colours = colours;
  event.extent = { radius, length };
  event.drawn = drawn;
  event.group = new THREE.Group().add(...Object.values(drawn));
  return event;
}

function layersOf(event) {
  const points = [], sides = 96;
  const circle = (r, z) => {
    for (let i = 0; i < sides; i++)
      for (const at of [i, i + 1]) points.push(r * Math.cos(2 * Math.PI * at / sides), r * Math.sin(2 * Math.PI * at / sides), z);
  };
  for (const layer of event.layers)
    for (const [r, z] of "r" in layer ? [[layer.r, layer.low], [layer.r, layer.high]] : [[layer.inner, layer.z], [layer.outer, layer.z]]) circle(r, z);
  const geometry = new THREE.BufferGeometry();
  geometry.setAttribute("position", new THREE.Float32BufferAttribute(points, 3));
  return new THREE.LineSegments(geometry, new THREE.LineBasicMaterial({ color: 0x6f86c9, transparent: true, opacity: 0.3 }));
}

// ---------------------------------------------------------------- colours

function ramp(value) {
  const at = Math.min(Math.max(value, 0), 1) * (RAMP.length - 1);
  const i = Math.min(Math.floor(at), RAMP.length - 2);
  return RAMP[i].map((low, c) => low + (RAMP[i + 1][c] - low) * (at - i));
}

const byMomentum = (pt) => ramp(Math.log(pt / LOWEST_PT) / Math.log(HIGHEST_PT / LOWEST_PT) || 0);

const colourOf = {
  pt: (event, t) => byMomentum(event.track_pt[t]),
  quality: (event, t) => ramp(event.track_quality[t]),
  verdict: (event, t) => [WRONG, RIGHT, SHORT][event.track_verdict[t]],
  track: (event, t) => new THREE.Color().setHSL((t * 0.618034) % 1, 0.65, 0.62).toArray(),
};

function paint(event) {
  const choose = colourOf[element("colour").value];
  const ofTrack = Array.from({ length: event.tracks }, (_, t) => choose(event, t));
  for (let i = 0; i < event.hits; i++)
    event.colours.array.set(event.label[i] < 0 ? FREE_HIT : ofTrack[event.label[i]], 3 * i);
  event.colours.needsUpdate = true;
  const css = (colour) => `rgb(${colour.map((c) => Math.round(255 * c)).join(" ")})`;
  const scale = element("scale");
  const gradient = `linear-gradient(to right, ${RAMP.map(css).join(", ")})`;
  const named = (colour, text) => `<span><b style="background:${css(colour)}"></b>${text}</span>`;
  const [image, text] = {
    pt: [gradient, `<span>${LOWEST_PT} GeV</span><span>${Math.sqrt(LOWEST_PT * HIGHEST_PT).toFixed(1)}</span><span>${HIGHEST_PT}</span>`],
    quality: [gradient, "<span>0</span><span>0.5</span><span>1</span>"],
    verdict: ["none", named(RIGHT, "right") + named(WRONG, "wrong") + named(SHORT, "under 3 hits")],
    track: ["none", ""],
  }[element("colour").value];
  scale.style.backgroundImage = image;
  scale.innerHTML = text;
  scale.style.paddingTop = image === "none" ? 0 : "";
}

// ---------------------------------------------------------------- filters

const lowestPt = () => { const v = +element("pt").value; return v ? 0.1 * 10 ** (v / 50) : 0; };

function wanted() {
  const value = (id) => +element(id).value;
  const volumes = element("region").value ? element("region").value.split(",").map(Number) : null;
  return { pt: lowestPt(), low: value("eta-low"), high: value("eta-high") >= 4.5 ? Infinity : value("eta-high"), size: value("size"), quality: value("quality"), volumes };
}

function passes(filter, pt, eta, size, quality) {
  const steep = Math.abs(eta);
  return !(pt < filter.pt) && size >= filter.size && !(steep < filter.low) && !(steep > filter.high) && !(quality < filter.quality);
}

function ownersIn(volumes, event, owner, number) {
  const inside = new Uint8Array(number).fill(volumes ? 0 : 1);
  if (volumes) for (let i = 0; i < event.hits; i++) if (owner[i] >= 0 && volumes.includes(event.volume[i])) inside[owner[i]] = 1;
  return inside;
}

function fill(object, rows) { // rows: how many entries of the index were written
  object.geometry.setDrawRange(0, rows);
  object.geometry.index.needsUpdate = true;
}

function fillLines(object, rows, owner, visible) {
  const index = object.geometry.index.array;
  let n = 0;
  for (let i = 1; i < rows.length; i++) {
    const a = rows[i - 1], b = rows[i];
    if (owner[a] === owner[b] && visible[owner[a]]) { index[n++] = a; index[n++] = b; }
  }
  fill(object, n);
}

function filter() {
  const event = shown, chosen = wanted(), { drawn } = event;
  const inside = ownersIn(chosen.volumes, event, event.label, event.tracks);
  const onlyMissed = event.judged && element("missed-only").checked;
  const tracksOn = element("tracks").checked && !onlyMissed;
  const visible = new Uint8Array(event.tracks);
  let tracks = 0, particles = 0;
  for (let t = 0; t < event.tracks; t++) {
    const quality = event.track_quality ? event.track_quality[t] : 1;
    visible[t] = tracksOn && inside[t] && passes(chosen, event.track_pt[t], event.track_eta[t], event.track_hits[t], quality);
    tracks += visible[t];
  }
  event.visible = visible;
  const free = drawn.free.geometry.index.array, hits = drawn.hits.geometry.index.array;
  let f = 0, h = 0;
  const freeOn = element("free").checked && !onlyMissed;
  for (let i = 0; i < event.hits; i++) {
    if (event.label[i] >= 0) { if (visible[event.label[i]]) hits[h++] = i; }
    else if (freeOn && (!chosen.volumes || chosen.volumes.includes(event.volume[i]))) free[f++] = i;
  }
  fill(drawn.free, f);
  fill(drawn.hits, h);
  fillLines(drawn.lines, event.track_rows, event.label, visible);
  if (event.judged) {
    const show = onlyMissed ? "missed" : element("particles").value;
    const number = event.particle_hits.length;
    const near = ownersIn(chosen.volumes, event, event.particle, number);
    const drawnParticles = new Uint8Array(number);
    for (let p = 0; p < number && show !== "none"; p++) {
      if (show === "missed" && event.particle_found[p]) continue;
      drawnParticles[p] = event.particle_charge[p] !== 0 && near[p] && passes(chosen, event.particle_pt[p], event.particle_eta[p], event.particle_hits[p], 1);
      particles += drawnParticles[p];
    }
    fillLines(drawn.particles, event.particle_rows, event.particle, drawnParticles);
    event.drawnParticles = drawnParticles;
  }
  drawn.layers.visible = element("layers").checked;
  const number = (n) => n.toLocaleString("en");
  element("shown").textContent = `Shown: ${number(tracks)} tracks, ${number(h + f)} hits` + (event.judged ? `, ${number(particles)} particles` : "");
  element("pt-value").textContent = chosen.pt ? `${chosen.pt.toFixed(2)} GeV` : "0";
  element("eta-low-value").textContent = chosen.low.toFixed(1);
  element("eta-high-value").textContent = chosen.high === Infinity ? "all" : chosen.high.toFixed(1);
  element("size-value").textContent = chosen.size;
  element("quality-value").textContent = chosen.quality.toFixed(2);
  redraw();
}

// ---------------------------------------------------------------- choosing a track or a missed particle

function pick(x, y) {
  const event = shown, point = new THREE.Vector3();
  const { clientWidth: width, clientHeight: height } = canvas;
  let best = CLICK_RADIUS, row = -1;
  for (let i = 0; i < event.hits; i++) {
    const onTrack = event.label[i] >= 0 && event.visible[event.label[i]];
    const onParticle = event.judged && event.particle[i] >= 0 && event.drawnParticles[event.particle[i]];
    if (!onTrack && !onParticle) continue;
    point.set(event.x[i], event.y[i], event.z[i]).project(camera);
    if (point.z > 1) continue;
    const away = Math.hypot((point.x + 1) * width / 2 - x, (1 - point.y) * height / 2 - y);
    if (away < best) { best = away; row = i; }
  }
  choose(row);
}

function choose(row) {
  const event = shown, { chosenLine, chosenHits } = event.drawn;
  const onTrack = row >= 0 && event.label[row] >= 0 && event.visible[event.label[row]];
  const [rows, owner] = onTrack ? [event.track_rows, event.label] : [event.particle_rows ?? [], event.particle];
  const own = row < 0 ? [] : Array.from(rows).filter((i) => owner[i] === owner[row]).slice(0, 100);
  own.forEach((i, n) => { chosenHits.geometry.index.array[n] = i; });
  fill(chosenHits, own.length);
  own.slice(1).forEach((i, n) => chosenLine.geometry.index.array.set([own[n], i], 2 * n));
  fill(chosenLine, Math.max(2 * (own.length - 1), 0));
  event.chosen = row < 0 ? null : { kind: onTrack ? "track" : "particle", number: owner[row], rows: own };
  const panel = element("chosen");
  panel.hidden = row < 0;
  if (row >= 0) panel.innerHTML = (onTrack ? ofTrack(event, owner[row]) : ofParticle(event, owner[row])) + tableOfHits(event, own, onTrack);
  redraw();
}

const line = (name, value) => `<tr><td>${name}</td><td>${value}</td></tr>`;
const number = (value, digits, unit = "") => (Number.isFinite(value) ? `${value.toFixed(digits)}${unit && ` ${unit}`}` : "not known");

function ofTrack(event, t) {
  const column = (name) => event[`track_${name}`]?.[t];
  let rows = "";
  if (event.fitted) {
    const momentum = Number.isFinite(column("pt_error")) ? ` ± ${column("pt_error").toPrecision(2)}` : "";
    rows += line("pT", Number.isFinite(column("pt")) ? `${column("pt").toFixed(3)}${momentum} GeV` : "not fitted") + line("charge", number(column("charge"), 0)) + line("eta", number(column("eta"), 3)) + line("phi", number(column("phi"), 3, "rad"));
    rows += line("d0", number(column("d0"), 3, "mm")) + line("z0", number(column("z0"), 2, "mm")) + line("chi2 / ndf", number(column("chi2"), 2)) + line("quality", number(column("quality"), 2));
  } else {
    rows += line("pT, estimated", number(column("pt"), 2, "GeV")) + line("eta, estimated", number(column("eta"), 2));
  }
  if (event.judged) {
    const p = column("particle");
    const verdict = ["no match", "matched", "fewer than three hits"][column("verdict")];
    rows += line("double majority", verdict);
    if (p >= 0) rows += line("majority particle", `pT ${number(event.particle_pt[p], 2, "GeV")}`) + line("hits shared with it", `${column("shared")} of its ${event.particle_hits[p]}`) + line("it was produced at", number(event.particle_radius[p], 2, "mm"));
  }
  return `<h2>Track ${t}: ${event.track_hits[t]} hits</h2><table>${rows}</table>`;
}

function ofParticle(event, p) {
  const column = (name) => event[`particle_${name}`][p];
  return `<h2>${column("found") ? "Particle" : "Missed particle"}: ${column("hits")} hits</h2><table>` + line("pT", number(column("pt"), 3, "GeV")) + line("charge", number(column("charge"), 0)) + line("eta", number(column("eta"), 3)) + line("production radius", number(column("radius"), 2, "mm")) + "</table>";
}

function tableOfHits(event, rows, onTrack) {
  const named = event.volume ? "<th>volume, layer</th>" : "";
  const last = onTrack ? "" : "<th>on track</th>";
  const body = rows.map((i) => `<tr><td>${event.hit_id[i]}</td>${named && `<td>${event.volume[i]}, ${event.layer[i]}</td>`}<td>${Math.hypot(event.x[i], event.y[i]).toFixed(1)}</td><td>${event.z[i].toFixed(1)}</td>${last && `<td>${event.label[i] < 0 ? "none" : event.label[i]}</td>`}</tr>`).join("");
  return `<table><tr><th>hit</th>${named}<th>r, mm</th><th>z, mm</th>${last}</tr>${body}</table>`;
}

// ---------------------------------------------------------------- one event after the other

let current = 0;
let touched = false; // whether somebody has chosen a momentum
element("pt").addEventListener("input", () => { touched = true; });

function complain(text) {
  element("message").textContent = text;
  element("message").hidden = !text;
}

async function show(index) {
  current = index;
  element("place").textContent = `${index + 1} of ${count}`;
  element("previous").disabled = index === 0;
  element("next").disabled = index + 1 >= count;
  complain(live.length && !loading.has(index) ? `Finding the tracks of ${live[index]} ...` : "");
  let event;
  try {
    event = await load(index);
  } catch (error) {
    if (index === current) complain(error.message);
    return;
  }
  if (index !== current) return; // another event was asked for meanwhile
  complain("");
  const first = shown === null;
  if (!first) {
    scene.remove(shown.group);
    shown.group.traverse((object) => { object.geometry?.dispose(); object.material?.dispose(); });
  }
  shown = build(event);
  if (event.tracks > CROWD && !touched) element("pt").value = 50; // 1 GeV
  scene.add(shown.group);
  describe(event);
  paint(event);
  filter();
  choose(-1);
  if (first) look("oblique");
  if (index + 1 < count) load(index + 1).catch(() => {}); // while one looks; a failure is reported when it is its turn
}

function describe(event) {
  const number = (n) => n.toLocaleString("en");
  document.title = `${event.name} · trackserve`;
  element("name").textContent = event.name;
  element("summary").textContent = `${number(event.hits)} hits, ${number(event.tracks)} tracks`;
  const offer = (kind, there) => document.querySelectorAll(`.${kind}`).forEach((e) => { e.hidden = !there; });
  offer("truth", event.judged);
  offer("fitted", event.fitted);
  offer("modules", "volume" in event);
  const colour = element("colour");
  for (const [value, there] of [["quality", event.fitted], ["verdict", event.judged]]) {
    const option = colour.querySelector(`[value=${value}]`);
    option.hidden = option.disabled = !there;
    if (!there && colour.value === value) colour.value = "pt";
  }
  if ("volume" in event && element("region").options.length === 1) {
    const present = [...new Set(event.volume)].sort((a, b) => a - b);
    const known = present.every((v) => Object.values(DETECTORS).flat().includes(v));
    for (const [name, volumes] of known ? Object.entries(DETECTORS) : present.map((v) => [`volume ${v}`, [v]]))
      element("region").add(new Option(name, volumes.join(",")));
  }
}

const step = (by) => { if (current + by >= 0 && current + by < count) show(current + by); };
element("previous").addEventListener("click", () => step(-1));
element("next").addEventListener("click", () => step(1));
element("events").hidden = count < 2;
for (const button of document.querySelectorAll("[data-view]")) button.addEventListener("click", () => look(button.dataset.view));
element("colour").addEventListener("input", () => { paint(shown); redraw(); });
for (const id of ["tracks", "free", "layers", "particles", "missed-only", "pt", "eta-low", "eta-high", "size", "quality", "region"])
  element(id).addEventListener("input", () => shown && filter());
document.addEventListener("keydown", (key) => {
  if (["INPUT", "SELECT"].includes(key.target.tagName)) return;
  if (key.key === "n") step(1);
  if (key.key === "p") step(-1);
  if (key.key === "Escape") choose(-1);
});
let pressed = null;
canvas.addEventListener("pointerdown", (at) => { pressed = [at.clientX, at.clientY]; });
canvas.addEventListener("pointerup", (at) => {
  if (shown && pressed && Math.hypot(at.clientX - pressed[0], at.clientY - pressed[1]) < 4) pick(at.clientX, at.clientY);
});
resize();
if (count) show(0);

// What tests and the curious read: the event that is shown, and milliseconds a frame while it turns.
window.display = {
  get event() { return shown; },
  where(row) {
    const at = new THREE.Vector3(shown.x[row], shown.y[row], shown.z[row]).project(camera);
    return [(at.x + 1) * canvas.clientWidth / 2, (1 - at.y) * canvas.clientHeight / 2];
  },
  async frameTime(frames = 30) {
    const gl = renderer.getContext(), pixel = new Uint8Array(4), times = [];
    for (let i = 0; i < frames; i++) {
      const began = performance.now();
      camera.position.applyAxisAngle(new THREE.Vector3(0, 1, 0), 0.02);
      camera.lookAt(0, 0, 0);
      renderer.render(scene, camera);
      gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel); // waits until the frame is drawn
      times.push(performance.now() - began);
      await new Promise(requestAnimationFrame);
    }
    return times.sort((a, b) => a - b)[frames >> 1];
  },
};
