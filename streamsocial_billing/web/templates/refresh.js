(() => {
  const main = document.querySelector("main"), said = document.getElementById("said");
  let seen = main.dataset.at;
  function show(text) {
    const page = new DOMParser().parseFromString(text, "text/html");
    const fresh = page.querySelector("main");
    if (!fresh) throw new Error("no page");
    main.innerHTML = fresh.innerHTML;
    seen = fresh.dataset.at;
    document.title = page.title;
    const headline = main.querySelector("h1").textContent;
    if (said.textContent !== headline) said.textContent = headline;
    document.body.classList.remove("stale");
  }
  function fail() {
    if (document.body.classList.contains("stale")) return;
    const lead = document.getElementById("lead"), about = document.createElement("p");
    const headline = document.createElement("h1");
    headline.textContent = said.textContent = "This worker does not answer.";
    about.textContent = `Last answer at ${seen}. What is below is what it said then. Ask another worker.`;
    lead.className = "lead critical";
    lead.replaceChildren(headline, about);
    document.body.classList.add("stale");
    document.title = "This worker does not answer \u2013 StreamSocial billing";
  }
  async function look() {
    try {
      const answer = await fetch("/", {headers: {Accept: "text/html"}, signal: AbortSignal.timeout(5000)});
      if (!answer.ok) throw new Error(answer.status);
      show(await answer.text());
    } catch { fail(); }
    setTimeout(look, 2000);
  }
  setTimeout(look, 2000);
})();
