# Completion of lore for bash. The flags of a command are those its --help prints.
_lore()
{
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command= i
    local commands="ingest query chat serve documents collections models adapters eval bench backup restore fsck digest doctor config version help"
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        --data | --config | --device | --vram-limit | --set | --chat-template | --log-level) ((i++)) ;;
        -*) ;;
        *)
            command=${COMP_WORDS[i]}
            break
            ;;
        esac
    done
    COMPREPLY=()
    case $previous in
    --device) mapfile -t COMPREPLY < <(compgen -W "auto cpu ref cuda" -- "$current"); return ;;
    --chat-template)
        mapfile -t COMPREPLY < <(compgen -W "auto chatml llama2 llama3 mistral alpaca" -f -- "$current")
        return
        ;;
    --log-level) mapfile -t COMPREPLY < <(compgen -W "error warn info debug" -- "$current"); return ;;
    --mode | -m) mapfile -t COMPREPLY < <(compgen -W "answer extract context prompt" -- "$current"); return ;;
    --data | --dir) mapfile -t COMPREPLY < <(compgen -d -- "$current"); return ;;
    --config) mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
    esac
    if [[ -z $command && $current != -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$current")
    elif [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$("${COMP_WORDS[0]}" ${command:-version} --help 2> /dev/null \
            | grep -oE -- '(^|[ ,])--?[a-z][a-z-]*' | tr -d ' ,')" -- "$current")
    else
        case $command in
        documents) mapfile -t COMPREPLY < <(compgen -W "list show delete" -- "$current") ;;
        collections) mapfile -t COMPREPLY < <(compgen -W "list create delete" -- "$current") ;;
        adapters) mapfile -t COMPREPLY < <(compgen -W "list add remove convert" -- "$current") ;;
        models) mapfile -t COMPREPLY < <(compgen -W "list info pull quantize merge-lora" -- "$current") ;;
        bench) mapfile -t COMPREPLY < <(compgen -W "ops encode prefill decode search ingest start serve greedy" -- "$current") ;;
        ingest | backup | restore) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
        esac
    fi
}
complete -o filenames -F _lore lore
