#include "kernels.h"

#include <cctype>
#include <set>

namespace emulated {
namespace {

bool begins_word(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_'; }
bool in_word(char c) { return begins_word(c) || std::isdigit(static_cast<unsigned char>(c)); }

// Words, literals, and single characters for the rest. A preprocessed text has no comments, but markers of lines.
std::vector<std::string> split(const std::string& text) {
    std::vector<std::string> tokens;
    bool line_begins = true;
    for (std::size_t i = 0; i < text.size();) {
        char c = text[i];
        std::size_t begin = i;
        if (c == '\n') {
            line_begins = true;
            ++i;
            continue;
        }
        if (std::isspace(static_cast<unsigned char>(c))) {
            ++i;
            continue;
        }
        if (c == '#' && line_begins) {
            while (i < text.size() && text[i] != '\n') ++i;
            continue;
        }
        line_begins = false;
        if (in_word(c)) {
            while (i < text.size() && (in_word(text[i]) || text[i] == '.')) {
                if (text[i] == '.' && begins_word(c)) break;
                ++i;
                // 1'000
                if (std::isdigit(static_cast<unsigned char>(c)) && i + 1 < text.size() && text[i] == '\'') ++i;
            }
        } else if (c == '"' || c == '\'') {
            for (++i; i < text.size() && text[i] != c; ++i) {
                if (text[i] == '\\') ++i;
            }
            ++i;
        } else {
            ++i;
        }
        tokens.push_back(text.substr(begin, i - begin));
    }
    return tokens;
}

// The index behind the parenthesis that closes the one at `open`.
std::size_t behind(const std::vector<std::string>& tokens, std::size_t open) {
    int depth = 0;
    for (std::size_t i = open; i < tokens.size(); ++i) {
        if (tokens[i] == "(") ++depth;
        if (tokens[i] == ")" && --depth == 0) return i + 1;
    }
    return tokens.size();
}

}  // namespace

std::vector<Definition> find_kernels(const std::string& preprocessed) {
    std::vector<std::string> tokens = split(preprocessed);
    std::vector<Definition> kernels;
    std::set<std::string> seen;
    std::vector<bool> c_linkage;  // for each open brace, whether it is of an extern "C" {
    std::size_t declaration = 0;  // where the current declaration begins
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        if (tokens[i] == "{") {
            c_linkage.push_back(i >= 2 && tokens[i - 1] == "\"C\"" && tokens[i - 2] == "extern");
        } else if (tokens[i] == "}" && !c_linkage.empty()) {
            c_linkage.pop_back();
        }
        if (tokens[i] == "{" || tokens[i] == "}" || tokens[i] == ";") declaration = i + 1;
        if (tokens[i] != "__global__") continue;

        bool c_name = false;
        for (bool braces : c_linkage) c_name = c_name || braces;
        for (std::size_t j = declaration; j + 1 < i; ++j) c_name = c_name || (tokens[j] == "extern" && tokens[j + 1] == "\"C\"");
        Definition kernel;
        std::size_t j = i + 1;
        // Attributes and the type; the name is the first other word with a parenthesis.
        while (j + 1 < tokens.size() && tokens[j] != ";" && tokens[j] != "{") {
            if (!begins_word(tokens[j][0]) || tokens[j + 1] != "(") {
                ++j;
                continue;
            }
            std::size_t end = behind(tokens, j + 1);
            if (tokens[j] == "__launch_bounds__") {
                for (std::size_t k = j + 2; k + 1 < end; ++k) kernel.bounds += tokens[k] + " ";
            } else if (tokens[j] != "__attribute__" && tokens[j] != "alignas") {
                kernel.name = tokens[j];
                if (end < tokens.size() && tokens[end] == "{" && c_name && seen.insert(kernel.name).second) {
                    kernels.push_back(kernel);
                }
                break;
            }
            j = end;
        }
    }
    return kernels;
}

std::string table(const std::vector<Definition>& kernels) {
    std::string text = "\n# 1 \"the table of kernels\"\n"
                       "extern \"C\" __attribute__((visibility(\"default\"), used)) const emulated::Kernel emulated_kernels[] = {\n";
    for (const Definition& kernel : kernels) {
        std::string launcher = "emulated::Launcher<&" + kernel.name + ">";
        text += "{\"" + kernel.name + "\", &" + launcher + "::launch, emulated::bound(" + kernel.bounds + "), " + launcher +
                "::POINTERS},\n";
    }
    return text + "{nullptr, nullptr, 0, 0}};\n";
}

}  // namespace emulated
