"use strict";
(() => {
  const $ = (id) => document.getElementById(id);

  // ---------------------------------------------------------------- light and dark
  const root = document.documentElement;
  const keep = (value) => { try { localStorage.setItem("lifelong-theme", value); } catch { /* file:// may forbid it */ } };
  try { root.dataset.theme = localStorage.getItem("lifelong-theme") || "auto"; } catch { root.dataset.theme = "auto"; }
  const dark = () => root.dataset.theme === "dark" ||
    (root.dataset.theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  const name = () => { $("theme").textContent = dark() ? "Light" : "Dark"; };
  $("theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    keep(root.dataset.theme);
    name();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();

  // ---------------------------------------------------------------- tables that sort
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    const number = cell.dataset.value;
    return number === undefined ? cell.textContent.trim() : number === "" ? null : Number(number);
  };
  const compare = (one, other) => typeof one === "number" && typeof other === "number"
    ? one - other : String(one).localeCompare(String(other), undefined, { numeric: true });
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row, column), row]);
      rows.sort(([one], [other]) => {
        if (one === null || other === null) return (one === null) - (other === null);  // the undefined come last
        return down ? compare(other, one) : compare(one, other);
      });
      table.tBodies[0].append(...rows.map(([, row]) => row));
    }));
  }

  // ---------------------------------------------------------------- answers
  const PAGE = 50, LONG = 400;
  const make = (tag, className, ...content) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...content);
    return element;
  };
  const text = (words, className = "text") => {  // long ones are folded
    const element = make("span", className);
    element.dir = "auto";
    if (words.length <= LONG) {
      element.textContent = words;
      return element;
    }
    const cut = make("span", "", words.slice(0, LONG) + "… ");
    const more = make("button", "", `show all ${words.length.toLocaleString("en")} characters`);
    more.type = "button";
    more.addEventListener("click", (event) => {
      event.stopPropagation();
      element.replaceChildren(words);
    });
    element.append(cut, more);
    return element;
  };

  const unpack = async () => {
    const bytes = Uint8Array.from(atob($("packed").textContent.trim()), (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    return new Response(stream).json();
  };

  const browse = (data) => {
    const { strings, runs, tasks, splits, passes, stages, questions } = data;
    const unscored = new Set(data.unscored.map((task) => tasks.indexOf(task)));
    const lower = strings.map((one) => one.toLowerCase());
    const last = questions.map(([, , , , , , given]) => given[given.length - 1][0]);
    const several = runs.length > 1;
    const most = Math.max(...stages.map((labels) => labels.length));
    const sameOrder = stages.every((labels) => labels.join("\n") === stages[0].join("\n"));
    const stageName = (run, stage) => stages[run][stage] ?? `after ${stage}`;

    const form = $("filters");
    const fill = (field, names, chosen) => {
      field.append(new Option("all", ""), ...names.map((one, number) => new Option(one, number)));
      field.value = names.includes(chosen) ? names.indexOf(chosen) : "";
      field.closest("label").hidden = names.length < 2;
    };
    fill(form.run, runs);
    fill(form.task, tasks);
    fill(form.split, splits, "test");
    fill(form.pass, passes, "closed");
    form.stage.append(new Option("the last one", "last"), new Option("all", ""));
    for (let stage = 0; stage < most; stage++) {
      form.stage.append(new Option(sameOrder ? stages[0][stage] : stage ? `after ${stage}` : "untrained", stage));
    }

    const outcome = (question, answer) => {
      if (unscored.has(question[1]) || answer[2] === null) return "";
      return answer[2] >= 1 - 1e-6 ? "right" : answer[2] <= 0 ? "wrong" : "partly";
    };
    const before = (question, answer) => question[6].filter((other) => other[0] < answer[0]);
    const isRight = (question) => (answer) => outcome(question, answer) === "right";
    const OUTCOMES = {
      right: (question, answer) => outcome(question, answer) === "right",
      partly: (question, answer) => outcome(question, answer) === "partly",
      wrong: (question, answer) => outcome(question, answer) === "wrong",
      forgotten: (question, answer) => !unscored.has(question[1]) && !isRight(question)(answer) &&
        before(question, answer).some(isRight(question)),
      learned: (question, answer) => isRight(question)(answer) && before(question, answer).length > 0 &&
        !isRight(question)(before(question, answer).at(-1)),
      cut: (question, answer) => answer[3] === 1,
    };

    let found = [], page = 0;
    const search = () => {
      const words = form.words.value.trim().toLowerCase();
      const hits = words && lower.map((one) => one.includes(words));
      const wanted = [form.run.value, form.task.value, form.split.value, form.pass.value];
      const test = OUTCOMES[form.outcome.value];
      found = [];
      questions.forEach((question, number) => {
        for (let part = 0; part < 4; part++) if (wanted[part] !== "" && question[part] !== Number(wanted[part])) return;
        const asked = !hits || hits[question[4]] || question[5].some((place) => hits[place]);
        for (const answer of question[6]) {
          const stage = form.stage.value;
          if (stage === "last" ? answer[0] !== last[number] : stage !== "" && answer[0] !== Number(stage)) continue;
          if (test && !test(question, answer)) continue;
          if (asked || hits[answer[1]]) found.push([question, answer]);
        }
      });
      page = 0;
      show();
    };

    const mark = (question, answer) => {
      const how = outcome(question, answer);
      if (how === "right") return make("span", "right", "✓ right");
      if (how === "wrong") return make("span", "wrong", "✗ wrong");
      if (answer[2] === null) return make("span", "", "not finite");
      const score = answer[2] < 1000 ? answer[2].toFixed(2) : answer[2].toExponential(1);
      return make("span", how === "partly" ? "partly" : "", how === "partly" ? `~ ${score}` : score);
    };
    const labelled = (label, content) => make("div", "", make("span", "label", label), content);
    const expectedOf = (question) => text(question[5].map((place) => strings[place]).join(" | ") || "–");
    const saidOf = (question, answer) =>
      text(strings[answer[1]] || (unscored.has(question[1]) ? "(measured, not asked)" : "(nothing)"));

    const show = () => {
      const pages = Math.max(1, Math.ceil(found.length / PAGE));
      const from = page * PAGE, shown = found.slice(from, from + PAGE);
      $("count").textContent = found.length
        ? `${(from + 1).toLocaleString("en")} to ${(from + shown.length).toLocaleString("en")} of ` +
          `${found.length.toLocaleString("en")} answers`
        : "No answer is like that.";
      $("previous").disabled = page === 0;
      $("next").disabled = page >= pages - 1;
      $("answers").replaceChildren(...shown.map(([question, answer]) => {
        const open = make("button", "open");
        const words = strings[question[4]];
        open.type = "button";
        open.dir = "auto";
        open.textContent = words.length > LONG ? words.slice(0, LONG) + "…" : words;
        open.addEventListener("click", () => tell(question));
        const place = [tasks[question[1]], splits[question[2]], passes[question[3]] + " book", stageName(question[0], answer[0])];
        if (several) place.unshift(runs[question[0]]);
        return make("li", "", mark(question, answer), labelled("question", open),
          labelled("expected", expectedOf(question)), labelled("answer", saidOf(question, answer)),
          make("div", "place", place.join(" · ")));
      }));
    };

    // ------------------------------------------------------------- one question, stage by stage
    const rowsOf = (entries) => entries.map(([label, question, answer]) => make("tr", "",
      make("th", "", label), make("td", "", saidOf(question, answer)), make("td", "", mark(question, answer))));
    const tabled = (first, caption, entries) => {
      const head = make("tr", "", ...[first, "answer", "score"].map((one) => {
        const cell = make("th", "", one);
        cell.scope = "col";
        return cell;
      }));
      const table = make("table", "", make("caption", "", caption), make("thead", "", head), make("tbody", "", ...rowsOf(entries)));
      for (const cell of table.tBodies[0].querySelectorAll("th")) cell.scope = "row";
      return make("div", "scroll", table);
    };
    const tell = (question) => {
      const [run, task, split, , place] = question;
      const alike = questions.filter((other) => other[1] === task && other[2] === split && other[4] === place);
      const parts = [];
      for (const other of alike.filter((one) => one[0] === run)) {
        const caption = `${several ? runs[run] + ", " : ""}${passes[other[3]]} book, stage by stage`;
        parts.push(tabled("stage", caption, other[6].map((answer) => [stageName(run, answer[0]), other, answer])));
      }
      const ends = alike.filter((one) => one[0] !== run && one[3] === question[3]);
      if (ends.length) {
        parts.push(tabled("run", "the other runs, after their last stage",
          ends.map((one) => [runs[one[0]], one, one[6][one[6].length - 1]])));
      }
      $("question").replaceChildren(text(strings[place]));
      $("expected").replaceChildren(`${tasks[task]}, ${splits[split]}; expected: `, expectedOf(question));
      $("changes").replaceChildren(...parts);
      $("history").showModal();
      $("history").firstElementChild.scrollTop = 0;
    };
    $("history").querySelector(".close").addEventListener("click", () => $("history").close());
    $("history").addEventListener("click", (event) => { if (event.target === $("history")) $("history").close(); });

    let waiting;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", search);
    form.words.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(search, 150); });
    $("previous").addEventListener("click", () => { page -= 1; show(); $("found").scrollIntoView(); });
    $("next").addEventListener("click", () => { page += 1; show(); $("found").scrollIntoView(); });
    search();
    $("found").hidden = false;
    $("unpacking").hidden = true;
  };
  if ($("packed")) {
    unpack().then(browse).catch((error) => {
      $("unpacking").textContent = `The answers cannot be shown in this browser (${error.message}); a newer one can.`;
    });
  }
})();
