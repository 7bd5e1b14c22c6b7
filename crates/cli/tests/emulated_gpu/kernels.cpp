#include "kernels.h"

#include <cctype>
#include <cstdlib>
#include <set>
#include <sstream>

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
        for (std::size_t j = declaration; j + 1 < i; ++j)
            c_name = c_name || (tokens[j] == "extern" && tokens[j + 1] == "\"C\"");
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

std::map<std::string, std::size_t> static_shared(const std::string& assembly, const std::vector<Definition>& kernels) {
    auto in_symbol = [](char c) { return in_word(c) || c == '.' || c == '$'; };
    std::map<std::string, std::size_t> sizes;
    std::map<std::string, std::set<std::string>> uses;  // of a function, everything that it names
    std::set<std::string> thread_local_symbols;
    std::istringstream lines(assembly);
    std::string function;
    for (std::string line; std::getline(lines, line);) {
        if (!line.empty() && line.back() == ':' && line[0] != '.' && in_symbol(line[0])) {
            function = line.substr(0, line.size() - 1);
            uses[function];
            continue;
        }
        if (line.rfind("\t.size\t", 0) == 0) {
            std::size_t comma = line.find(',');
            if (comma != std::string::npos)
                sizes[line.substr(7, comma - 7)] = std::strtoul(line.c_str() + comma + 1, nullptr, 10);
            continue;
        }
        // Only instructions: other directives may already be about the next function.
        if (line.rfind("\t.", 0) == 0) continue;
        for (std::size_t i = 0; i < line.size();) {
            std::size_t end = i;
            while (end < line.size() && in_symbol(line[end])) ++end;
            if (end > i) {
                std::string symbol = line.substr(i, end - i);
                std::string relocation = line.substr(end, 7);
                if (relocation.rfind("@tls", 0) == 0 || relocation == "@dtpoff") thread_local_symbols.insert(symbol);
                uses[function].insert(symbol);
            }
            i = end + 1;
        }
    }
    std::map<std::string, std::size_t> result;
    for (const Definition& kernel : kernels) {
        std::set<std::string> reached = {kernel.name};
        std::vector<std::string> open = {kernel.name};
        std::size_t bytes = 0;
        while (!open.empty()) {
            std::string at = open.back();
            open.pop_back();
            if (thread_local_symbols.count(at)) bytes += sizes[at];
            auto found = uses.find(at);
            if (found == uses.end()) continue;
            for (const std::string& symbol : found->second) {
                if (reached.insert(symbol).second) open.push_back(symbol);
            }
        }
        result[kernel.name] = bytes;
    }
    return result;
}

std::string table(const std::vector<Definition>& kernels) {
    std::string text =
        "\n# 1 \"the table of kernels\"\n"
        "extern \"C\" __attribute__((visibility(\"default\"), used)) const emulated::Kernel emulated_kernels[] = {\n";
    for (const Definition& kernel : kernels) {
        std::string launcher = "emulated::Launcher<&" + kernel.name + ">";
        text += "{\"" + kernel.name + "\", &" + launcher + "::launch, emulated::bound(" + kernel.bounds + "), " +
                launcher + "::POINTERS, " + launcher + "::SIZES},\n";
    }
    return text + "{nullptr, nullptr, 0, 0, nullptr}};\n";
}

}  // namespace emulated
