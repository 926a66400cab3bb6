// A button beside each command that copies it.

const COPIED_MS = 2000;

async function copyCommand(button, words) {
  try {
    await navigator.clipboard.writeText(words);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(button.previousElementSibling); // then the keys of the browser copy it
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), COPIED_MS);
}

function addCopyButtons() {
  for (const command of document.querySelectorAll("code.command")) {
    const button = element("button", "Copy", { type: "button", class: "copy", "aria-label": `Copy: ${command.textContent}` });
    button.addEventListener("click", () => copyCommand(button, command.textContent));
    command.after(button);
  }
}
